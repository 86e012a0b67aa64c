"""No secret comes to light: planted wherever secrets come from, looked for wherever one could be seen.

Real workers run real tools in two environments, one whose states Conductor keeps and one whose states
it serves to Terraform. Of each kind of source there is one that works and one that fails.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.core import mail
from django.db import connection
from django.test import Client
from django.utils.log import AdminEmailHandler
from rest_framework.test import APIClient

from provisioning.models import (
    AuditEvent,
    Deployment,
    LogChunk,
    Resource,
    StateVersion,
    Step,
)
from provisioning.models.deployments import TERMINAL_STATUSES
from provisioning.services.credentials import set_credential
from provisioning.services.outputs import MASK, resolved_outputs
from provisioning.services.people import system_user
from provisioning.services.state.versions import content_of
from tests.journeys.canaries import (
    Arguments,
    Canaries,
    addresses,
    admin_addresses,
    crawl,
    dump_database,
    files_below,
    listen,
)
from tests.portal.commands import run
from tests.portal.live import served
from tests.portal.test_rest_deployments import client_of
from tests.provisioning.place import Place, new_place
from tests.provisioning.queue.conftest import RealWorker, wait_for

pytestmark = [pytest.mark.terraform, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

SENSITIVE = {
    "type": "object",
    "properties": {"secret": {"type": "string", "writeOnly": True}},
    "additionalProperties": True,
}
# A script that finds its secret outside, and says it in every form and in pieces before it answers.
SCRIPT = r"""#!/usr/bin/python3
import base64, json, sys, time
from urllib.parse import quote
asked = json.load(sys.stdin)
params = asked["resource_params"]
secret = params.get("secret") or open(params["vault"] + "/" + params["name"]).read()
say = lambda text: (sys.stderr.write(text), sys.stderr.flush())
for written in (
    secret, json.dumps(secret), json.dumps(secret, ensure_ascii=False), json.dumps(json.dumps(secret)),
    quote(secret, safe=""), base64.b64encode(b"me:" + secret.encode()).decode(),
):
    say("it is " + written + "\n")
for piece in (secret[:5], secret[5:9], secret[9:] + "\n"):
    say(piece)
    time.sleep(0.12)
say("x" * 65530 + secret + "x" * 65530 + secret + "\n")
if params.get("fail"):
    sys.exit("no login with " + secret + " and " + quote(secret))
json.dump({
    "resource_outputs": {"token": secret, "host": "example.org"},
    "resource_state": {"token": secret},
}, sys.stdout)
"""
# A module that knows a sensitive variable, makes something that its state alone tells is a secret,
# and keeps a secret in an attribute that is none. A program that it runs says whatever it finds.
MODULE = r"""
variable "secret" {
  type      = string
  sensitive = true
}
variable "vault" { type = string }
variable "fail" { default = "" }
locals {
  secret = nonsensitive(var.secret)
  made   = file("${var.vault}/made")
}
resource "terraform_data" "made" { input = sensitive(local.made) }
resource "terraform_data" "plain" { input = "login with ${local.secret}" }
resource "terraform_data" "talks" {
  triggers_replace = [terraform_data.made.id, terraform_data.plain.id]
  lifecycle {
    precondition {
      condition     = var.fail != "precondition"
      error_message = "There is no login with ${local.secret}."
    }
  }
  provisioner "local-exec" {
    environment = { SAID = local.secret, MADE = local.made }
    command     = <<-SHELL
      env; cat conductor.tfvars.json terraform.tfstate "$AS_FILE"
      echo "$SAID" "$MADE"
      if [ "$TF_HTTP_PASSWORD" ]; then printf %s "$TF_HTTP_PASSWORD" > ${var.vault}/http; fi
      echo running > ${var.vault}/running
      while [ -e ${var.vault}/wait ]; do sleep 0.05; done
      if [ "${var.fail}" ]; then echo "refused: $SAID $MADE $ENCRYPTED" >&2; exit 3; fi
    SHELL
  }
}
output "key" {
  value     = "key of ${terraform_data.made.output}"
  sensitive = true
}
output "plain" { value = terraform_data.plain.output }
"""
# A driver of another package, whose exceptions tell all they know.
DRIVER = """
from provisioning.drivers.base import TemplateInterface

class CarelessDriver:
    name = label = "careless"

    def tool(self):
        return None

    def describe(self, content, config):
        return TemplateInterface({"type": "object", "properties": {}}, ())

    def ensure(self, resource, run):
        said = resource.params["secret"] + run.environment["ENCRYPTED"]
        if resource.params.get("database"):
            from django.db import OperationalError
            if run.attempt == 1:
                raise OperationalError(said)
        raise RuntimeError(said)

    def destroy(self, resource, run):
        raise NotImplementedError
"""
GOOD = """\
  source: {{type: source, params: {{vault: {vault}, name: source}}}}
  db: {{type: database}}
  told: {{type: told, params: {{url: '${{resources.source.token}} ${{resources.db.url}}'}}}}
  referred: {{type: source, class: other, params: {{vault: {vault}, secret: {{secretref: 'env:REFERRED'}}}}}}
  module: {{type: module, params: {{vault: {vault}, secret: '${{resources.source.token}}'}}}}
"""
BAD = """\
  source: {{type: source, params: {{vault: {vault}, name: source}}}}
  failing: {{type: source, class: other, params: {{vault: {vault}, secret: '${{resources.source.token}}', fail: 'yes'}}}}
  database: {{type: database, params: {{extensions: [nothing]}}}}
  module: {{type: module, params: {{vault: {vault}, secret: '${{resources.source.token}}', fail: 'yes'}}}}
  refused: {{type: module, class: other, params: {{vault: {vault}, secret: '${{resources.source.token}}', fail: precondition}}}}
  careless: {{type: careless, params: {{secret: '${{resources.source.token}}'}}}}
  away: {{type: careless, class: other, params: {{secret: '${{resources.source.token}}', database: 'yes'}}}}
"""


@dataclass
class Scene:
    """Hold where it happens, and what was planted."""

    place: Place
    canaries: Canaries
    vault: Path
    worker: RealWorker
    address: str
    folder: Path
    var: Path
    arguments: Arguments


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    """Return a folder outside of Conductor where tools find secrets, and leave signs."""
    folder = tmp_path / "vault"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


@pytest.fixture
def canaries(vault: Path, child_environment: dict[str, str]) -> Canaries:
    """Return the planted secrets; those of Conductor itself count as well."""
    planted = Canaries()
    for name in ("source", "made", "file"):
        (vault / name).write_text(planted.plant(name))
    admin = urlsplit(child_environment["CONDUCTOR_POSTGRES_ADMIN_URL"]).password
    planted.by_name["administrator"] = unquote(admin or "")
    planted.by_name["signing key"] = child_environment["SECRET_KEY"]
    planted.by_name["encryption key"] = child_environment["CONDUCTOR_ENCRYPTION_KEYS"]
    return planted


@pytest.fixture
def environment(
    canaries: Canaries,
    child_environment: dict[str, str],
    tmp_path: Path,
    vault: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, str]:
    """Return the environment of the worker, with secrets of the operator's and a driver more."""
    package = tmp_path / "packages" / "careless-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: careless\nVersion: 1\n")
    (package / "entry_points.txt").write_text(
        "[conductor.drivers]\ncareless = careless_driver:CarelessDriver\n"
    )
    (package.parent / "careless_driver.py").write_text(DRIVER)
    monkeypatch.syspath_prepend(package.parent)
    proxy = canaries.by_name["proxy"] = "pr0xy-of-the-operator"
    return child_environment | {
        "CONDUCTOR_SANDBOX": "auto",
        "CONDUCTOR_SANDBOX_PATHS": f"{vault}=rw",
        "CONDUCTOR_LEASE_SECONDS": "3",
        "CONDUCTOR_SECRETS_DIR": str(vault),
        "CONDUCTOR_SECRET_REFERRED": canaries.plant("referred"),
        "CONDUCTOR_SECRET_FROM_ENV": canaries.plant("from env"),
        "CONDUCTOR_DRIVER_ENV_CLOUD_TOKEN": canaries.plant("operator"),
        "CONDUCTOR_DRIVER_ENV_CLOUD_REGION": "eu-west-1",
        "https_proxy": f"http://proxy:{proxy}@127.0.0.1:9/",
        "PYTHONPATH": str(package.parent),
    }


@pytest.fixture
def scene(
    transactional_db: None,
    canaries: Canaries,
    environment: dict[str, str],
    vault: Path,
    tmp_path: Path,
    settings: LazySettings,
) -> Iterator[Scene]:
    """Return an organisation with templates, credentials, a running worker and a running portal."""
    settings.VAR_DIR = tmp_path / "web-var"
    place = new_place()
    served_states = place.beside("served", state_backend={"type": "http"}).environment
    for each in (place.environment, served_states):
        give_credentials(canaries, each)
    script = {"driver": "script", "config": {"command": "make.py"}, "content": {"make.py": SCRIPT}}
    place.template(
        "source", outputs={"token": True, "host": False}, params_schema=SENSITIVE, **script
    )
    place.template("database", driver="postgres", outputs={"url": True, "password": True})
    place.template(
        "told",
        driver="template",
        outputs={"url": False},
        config={"outputs": {"url": "${params.url}"}},
    )
    place.template(
        "module",
        driver="terraform",
        outputs={"key": True, "plain": False},
        content={"main.tf": MODULE},
        params_schema=SENSITIVE,
    )
    place.template("careless", driver="careless", params_schema=SENSITIVE)
    worker = RealWorker(environment, tmp_path)
    arguments = Arguments()
    arguments.start()
    with served(environment, tmp_path) as address:
        worker._environment["CONDUCTOR_URL"] = address
        worker.start()
        try:
            yield Scene(
                place, canaries, vault, worker, address, tmp_path, tmp_path / "var", arguments
            )
        finally:
            arguments.end()
            worker.end()


def give_credentials(canaries: Canaries, environment: Any) -> None:
    """Give an environment one credential of each kind."""
    values = canaries.by_name
    for name, value, reference, as_file in (
        ("ENCRYPTED", values.get("encrypted") or canaries.plant("encrypted"), "", False),
        ("FROM_ENV", "", "env:FROM_ENV", False),
        ("FROM_FILE", "", "file:file", False),
        ("AS_FILE", values.get("as file") or canaries.plant("as file"), "", True),
    ):
        set_credential(
            environment=environment,
            name=name,
            value=value,
            reference=reference,
            as_file=as_file,
            actor=system_user(),
        )


def ended(deployment: Deployment, scene: Scene, seconds: float = 90) -> Deployment:
    """Wait until a deployment has ended."""
    wait_for(
        f"deployment {deployment.pk} ended; {scene.worker.said()}",
        lambda: Deployment.objects.get(pk=deployment.pk).status in TERMINAL_STATUSES,
        seconds,
    )
    return Deployment.objects.get(pk=deployment.pk)


def deploy_everything(scene: Scene, alice: User) -> list[Deployment]:
    """Deploy what works, in both environments, and what fails; look around while a tool runs."""
    vault = scene.vault
    beside = scene.place.beside("served")
    (vault / "wait").touch()
    good = scene.place.submit(GOOD.format(vault=vault), actor=alice)
    wait_for("terraform runs", (vault / "running").exists, 60)
    holding = [path for path in files_below(scene.var / "work") if names_in(scene, path)]
    assert holding, "no file of a running tool holds a secret: this looks in the wrong place"
    assert [path for path in holding if path.stat().st_mode & 0o077] == []
    (vault / "wait").unlink()
    ended(good, scene)
    there = ended(beside.submit(GOOD.format(vault=vault), actor=alice), scene)
    scene.canaries.by_name["http state"] = (vault / "http").read_text()
    assert scene.canaries.by_name["http state"]
    bad = ended(scene.place.submit(BAD.format(vault=vault), workload="bad", actor=alice), scene)
    statuses = {step.resource.key: step.status for step in Step.objects.filter(deployment=good)}
    assert (good.pk, ended(good, scene).status) == (good.pk, "succeeded"), statuses
    assert there.status == "succeeded", errors(there)
    assert bad.status == "failed"
    assert sorted(
        step.resource.key.rpartition("/")[2] + ":" + step.status
        for step in bad.steps.select_related("resource")
    ) == [
        "careless.default:failed",
        "careless.other:failed",
        "database.default:failed",
        "module.default:failed",
        "module.other:failed",
        "source.default:succeeded",
        "source.other:failed",
    ], errors(bad)
    return [good, there, bad]


def errors(deployment: Deployment) -> list[str]:
    return [step.error for step in deployment.steps.exclude(error="")]


def names_in(scene: Scene, path: Path) -> list[str]:
    return scene.canaries.names_in(path.read_bytes())


def check_control(scene: Scene, owner: User) -> None:
    """Find the secrets where they have to be: in what the worker knew, and what is revealed to its team."""
    canaries = scene.canaries
    states = b"".join(content_of(each) for each in StateVersion.objects.all())
    assert {"source", "made"} <= {*canaries.names_in(states)}
    revealed = {
        name: resolved_outputs(
            application=scene.place.application(),
            environment=scene.place.beside(name).environment,
            reveal=True,
            actor=owner,
        )
        for name in ("dev", "served")
    }
    assert {"source", "made"} <= {*canaries.names_in(str(revealed).encode())}
    for name, outputs in revealed.items():
        database = outputs["web"]["db"]
        canaries.by_name[f"database of {name}"] = database["password"]
        assert outputs["web"]["told"]["url"].endswith(database["url"])


def look_everywhere(scene: Scene, member: Client, staff: Client, caplog: Any) -> set[str]:
    """Look for the secrets in every sink; return the addresses that were answered."""
    canaries = scene.canaries
    answered = crawl(member, ["/", *addresses()], canaries, "member")
    # Staff may read whole states, and that is recorded: no leak. All else of the portal they look at, too.
    may_reveal = ("/content/", "/api/state/")
    theirs = [each for each in addresses() if not any(part in each for part in may_reveal)]
    staffs = ["/", "/admin/", *theirs, *admin_addresses()]
    answered |= crawl(staff, staffs, canaries, "staff", follow=False)
    deployments = list(Deployment.objects.order_by("pk"))
    for deployment in deployments:
        path = f"/deployments/{deployment.pk}/log/events/"
        heard = listen(scene.address, member, path)
        assert b"event: end" in heard
        canaries.look(f"{path} (events)", heard)
        for words in (["logs"], ["logs", "--format", "json"], ["logs", "-f"]):
            ran = run(words[0], str(deployment.pk), *words[1:])
            canaries.look(f"{' '.join(words)} {deployment.pk}", ran.out + ran.err)
    for environment in ("dev", "served"):
        target = ["--app", "shop", "--env", environment]
        for words in (["outputs", *target], ["outputs", *target, "--format", "json"]):
            ran = run(*words)
            assert (ran.status, MASK in ran.out or "\\u2022" in ran.out) == (0, True), ran.err
            canaries.look(" ".join(words), ran.out + ran.err)
    for resource in Resource.objects.select_related("environment"):
        for words in (["state", "list"], ["resource", "show"], ["resource", "orphans"]):
            ran = run(*words, str(resource.pk), "--env", resource.environment.name)
            canaries.look(f"{' '.join(words)} {resource.key}", ran.out + ran.err)
    canaries.look("the worker's output", scene.worker.output.read_bytes())
    canaries.look("the web's output", (scene.folder / "server-output").read_bytes())
    canaries.look("the log of this process", caplog.text)
    canaries.look("arguments", b"\n".join(scene.arguments.seen))
    for path in files_below(scene.var):
        canaries.look(str(path), path.read_bytes())
    canaries.look("pg_dump", dump_database())
    return answered


def test_no_secret_comes_to_light(
    scene: Scene,
    alice: User,
    charlie: User,
    bob: User,
    settings: LazySettings,
    client: Client,
    caplog: pytest.LogCaptureFixture,
) -> None:
    place, canaries = scene.place, scene.canaries
    place.application("shop", alice)
    place.team_named("everybody", charlie)
    server = settings.EMBEDDED_SERVER
    said_before = server.log.stat().st_size if server else 0
    deployments = deploy_everything(scene, alice)
    check_control(scene, charlie)
    User.objects.filter(pk=bob.pk).update(is_staff=True, is_superuser=True)
    staff = Client()
    client.force_login(alice)
    staff.force_login(User.objects.get(pk=bob.pk))

    answered = look_everywhere(scene, client, staff, caplog)
    if server:
        canaries.look("PostgreSQL's log", server.log.read_bytes()[said_before:])
    look_at_error_mails(scene, charlie, settings)

    assert canaries.found == []
    # That there was something to find: all kinds of pages answered, and masks stand where secrets stood.
    for deployment in deployments:
        assert f"/deployments/{deployment.pk}/" in answered
        assert f"/api/v1/deployments/{deployment.pk}/log/" in answered
    assert {"/metrics", "/health/", "/admin/", "/api/v1/deployments/"} <= answered
    assert "failed unexpectedly" in scene.worker.said()
    assert MASK in scene.worker.said()
    assert Step.objects.filter(error__contains=MASK).count() == 3
    masked = LogChunk.objects.filter(text__contains=MASK).values("step__resource__key").distinct()
    assert masked.count() >= 6

    check_that_leaks_are_found(scene, client, staff, deployments[0])


def look_at_error_mails(scene: Scene, owner: User, settings: LazySettings) -> None:
    """Let a page fail whose frames hold a whole state in clear, and read what is mailed."""
    settings.ADMINS = [("Ops", "ops@example.org")]
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    api: APIClient = client_of(owner)
    api.raise_request_exception = False
    version = StateVersion.objects.filter(serial__isnull=False).latest("pk")
    address = f"/api/v1/resources/{version.resource_id}/state/{version.number}/content/"
    answer = api.get(address)
    assert scene.canaries.names_in(answer.content) >= ["made"], "an owner may read the state"
    whole = AdminEmailHandler(include_html=True)
    logging.getLogger("django.request").addHandler(whole)
    try:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE provisioning_auditevent RENAME TO gone")
            answer = api.get(address)
            cursor.execute("ALTER TABLE gone RENAME TO provisioning_auditevent")
    finally:
        logging.getLogger("django.request").removeHandler(whole)
    assert answer.status_code == 500
    scene.canaries.look("the page of an error", answer.content)
    bodies = [
        (part.get_payload(decode=True) or b"").decode()
        for message in mail.outbox
        for part in message.message().walk()
        if not part.is_multipart()
    ]
    assert len(mail.outbox) >= 2
    assert any("provisioning_auditevent" in body for body in bodies)
    assert any("<html" in body for body in bodies)
    for message in mail.outbox:
        scene.canaries.look("the subject of an error mail", message.subject)
    for body in bodies:
        scene.canaries.look("an error mail", body)


def check_that_leaks_are_found(
    scene: Scene, member: Client, staff: Client, deployment: Deployment
) -> None:
    """Plant leaks in what people can see, so that the search itself is known to find."""
    canaries = scene.canaries
    secret = canaries.by_name["source"]
    step = deployment.steps.order_by("pk").first()
    assert step is not None
    LogChunk.objects.create(
        step=step, attempt=1, sequence=9999, stream="stdout", level="info", text=f"{secret}\n"
    )
    AuditEvent.objects.create(
        actor="x", action="leak", subject_type="step", subject_id="1", subject="x", reason=secret
    )
    page, log = f"/deployments/{deployment.pk}/", f"/api/v1/deployments/{deployment.pk}/log/"
    audit = "/admin/provisioning/auditevent/"
    crawl(member, [page, log], canaries, "member", follow=False)
    crawl(staff, [audit], canaries, "staff", follow=False)
    canaries.look("events", listen(scene.address, member, f"{page}log/events/"))
    canaries.look("logs", run("logs", str(deployment.pk)).out)
    canaries.look("pg_dump", dump_database())
    assert sorted(canaries.found) == sorted(
        f"source in {where}"
        for where in (
            f"{page} (member)", f"{log} (member)", f"{audit} (staff)", "events", "logs", "pg_dump",
        )
    )  # fmt: skip
