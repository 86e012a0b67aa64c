"""States that Terraform keeps at Conductor's own address, by the real binary over a real server."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from django.conf import LazySettings
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from rest_framework.authtoken.models import Token

from provisioning.drivers.folders import said_folder
from provisioning.models import (
    AuditEvent,
    Deployment,
    LogChunk,
    PossibleOrphan,
    StateLock,
    StateVersion,
)
from provisioning.models.deployments import TERMINAL_STATUSES
from provisioning.services.state.versions import content_of
from provisioning.workers import runner
from tests.portal.commands import run
from tests.portal.live import served
from tests.provisioning.place import Place
from tests.provisioning.queue.conftest import RealWorker, title, wait_for

pytestmark = [pytest.mark.terraform, pytest.mark.django_db(transaction=True)]

MODULE = """
variable "size" { default = "small" }
resource "terraform_data" "it" { input = var.size }
output "size" { value = terraform_data.it.output }
output "secret" {
  value     = "s3cret-${terraform_data.it.id}"
  sensitive = true
}
"""
# Things that take their time, so that the tool can be killed between them.
SLOW = """
variable "ledger" { type = string }
resource "terraform_data" "part" {
  for_each = toset(["a", "b", "c", "d \\"e\\""])
  input    = each.key
}
resource "terraform_data" "last" {
  input = [for part in terraform_data.part : part.id]
  provisioner "local-exec" {
    command = "echo here >> ${var.ledger}; sleep 60"
  }
}
"""
KEY = "private/shop/web/thing/thing.default"


@pytest.fixture
def at_conductor(
    transactional_db: None,
    place: Place,
    child_environment: dict[str, str],
    settings: LazySettings,
    tmp_path: Path,
) -> Iterator[Place]:
    """Return a place whose states are served by a live server."""
    place.environment.state_backend = {"type": "http"}
    place.environment.save()
    place.template(
        "thing",
        driver="terraform",
        outputs={"size": False, "secret": True},
        content={"main.tf": MODULE},
    )
    with served(child_environment, tmp_path) as address:
        settings.CONDUCTOR_URL = address
        yield place


def kill_terraform_once(ledger: Path, folder: Path) -> threading.Thread:
    """Kill the tool in a resource's work folder as soon as its module has written something."""

    def wait_and_kill() -> None:
        wait_for("the module came so far", ledger.exists, 30)
        psutil.Process(int((said_folder(folder) / "tool").read_text())).kill()

    thread = threading.Thread(target=wait_and_kill)
    thread.start()
    return thread


def logged() -> str:
    return "".join(LogChunk.objects.order_by("pk").values_list("text", flat=True))


def test_a_resource_lives_and_goes_with_its_state_at_conductor(at_conductor: Place) -> None:
    place = at_conductor
    first = place.deploy("  thing:\n    type: thing\n")
    assert first.status == "succeeded", logged()
    resource = place.resource(KEY)
    second = place.deploy("  thing:\n    type: thing\n    params: {size: large}\n")
    assert second.status == "succeeded", logged()
    states = [json.loads(content_of(each)) for each in StateVersion.objects.order_by("number")]
    assert (resource.state_backend, resource.state_location) == (
        "http",
        f"resources/{resource.pk}",
    )
    assert len({state["resources"][0]["instances"][0]["attributes"]["id"] for state in states}) == 1
    assert not StateLock.objects.exists()
    assert place.teardown().status == "succeeded", logged()
    assert "s3cret-" not in logged()


def test_what_a_killed_apply_made_is_told_and_can_be_imported(
    at_conductor: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, charlie: User
) -> None:
    place, ledger = at_conductor, tmp_path / "module-ledger"
    monkeypatch.setattr(runner, "RETRY_SECONDS", ())
    place.template("slow", driver="terraform", content={"main.tf": SLOW})
    slow = f"  thing:\n    type: slow\n    params: {{ledger: '{ledger}'}}\n"
    deployment = place.submit(slow)
    resource = place.resource("private/shop/web/thing/slow.default")
    killer = kill_terraform_once(ledger, tmp_path / "work" / str(resource.pk))

    assert place.done(deployment).status == "failed"
    killer.join()

    assert "was killed by signal 9" in deployment.steps.get().error
    assert StateLock.objects.get().lock_id
    assert not StateVersion.objects.exists()  # Terraform had not written any in so short a time
    found = run("resource", "orphans", str(resource.pk), "--env", "dev").out
    assert found in logged()
    assert found.count("import {") == 4
    assert '  to = terraform_data.part["d \\"e\\""]\n' in found
    assert "# terraform_data.last: its making was begun, and its id was never heard.\n" in found
    ids = set(PossibleOrphan.objects.exclude(id_value="").values_list("id_value", flat=True))

    folder = tmp_path / "by-hand"
    folder.mkdir()
    (folder / "main.tf").write_text(SLOW.replace("; sleep 60", ""))
    (folder / "imports.tf").write_text(found)
    place.team_named("everybody", charlie)
    by_hand(folder, resource.pk, Token.objects.create(user=charlie), ledger)
    events = AuditEvent.objects.filter(actor="charlie").order_by("pk")
    told = list(events.values_list("action", flat=True))
    assert told[0] == "state.unlocked"
    assert "state.pushed" in told

    again = place.deploy(slow)
    assert again.status == "succeeded", logged()
    newest = StateVersion.objects.latest("number")
    state = json.loads(content_of(newest))
    parts = next(each for each in state["resources"] if each["name"] == "part")
    assert {each["attributes"]["id"] for each in parts["instances"]} == ids
    assert not PossibleOrphan.objects.exists()


def by_hand(folder: Path, resource: object, token: Token, ledger: Path) -> None:
    """Apply a module as a person does, with the state of a resource at Conductor."""
    address = f"{django_settings.CONDUCTOR_URL}/api/state/{resource}"
    (folder / "backend.tf").write_text(
        'terraform {\n  backend "http" {\n'
        f'    address = "{address}"\n    lock_address = "{address}"\n'
        f'    unlock_address = "{address}"\n    lock_method = "LOCK"\n'
        '    unlock_method = "UNLOCK"\n  }\n}\n'
    )
    plain = ["-input=false", "-no-color"]
    for words in (
        ["init", *plain],
        ["force-unlock", "-force", "whatever"],  # which is sent chunked, without a body
        ["apply", "-auto-approve", f"-var=ledger={ledger}", *plain],
    ):
        ran = subprocess.run(
            [django_settings.CONDUCTOR_TERRAFORM, *words],
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "CHECKPOINT_DISABLE": "1",
                "TF_HTTP_USERNAME": token.user.get_username(),
                "TF_HTTP_PASSWORD": token.key,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr


PARTS = """
variable "ledger" { type = string }
resource "terraform_data" "part" {
  count = 12
  input = count.index
  provisioner "local-exec" {
    command = "sleep 0.3; echo ${self.input} >> ${var.ledger}"
  }
}
"""


@pytest.mark.slow
def test_a_tool_outlives_its_worker_and_keeps_its_state_at_conductor(
    at_conductor: Place, child_environment: dict[str, str], tmp_path: Path
) -> None:
    place, ledger = at_conductor, tmp_path / "module-ledger"
    place.template("parts", driver="terraform", content={"main.tf": PARTS})
    url = {"CONDUCTOR_URL": str(django_settings.CONDUCTOR_URL)}
    worker = RealWorker(child_environment | url, tmp_path)
    worker.start()
    try:
        deployment = place.submit(
            f"  thing:\n    type: parts\n    params: {{ledger: '{ledger}'}}\n"
        )
        wait_for("the module came so far", ledger.exists, 30)
        (busy,) = [each for each in worker.workers() if "processing" in title(each)]
        busy.kill()
        wait_for(
            f"the deployment ended; {worker.said()}",
            lambda: Deployment.objects.get(pk=deployment.pk).status in TERMINAL_STATUSES,
            60,
        )
    finally:
        worker.end()
    assert Deployment.objects.get(pk=deployment.pk).status == "succeeded", logged()
    assert "Following what the attempt before this one began" in logged()
    state = json.loads(content_of(StateVersion.objects.latest("number")))
    assert len(state["resources"][0]["instances"]) == 12
    assert sorted(map(int, ledger.read_text().split())) == list(range(12))
    assert not StateLock.objects.exists()
    assert not PossibleOrphan.objects.exists()
