from __future__ import annotations

from pathlib import Path

import pytest
from django.db import transaction

from provisioning.encryption import decrypt
from provisioning.models import (
    AuditEvent,
    ConsumerState,
    Deployment,
    Resource,
    ResourceConsumer,
    ResourceDependency,
    ResourceOutput,
    Step,
    Workload,
)
from provisioning.planning.plan import PlanError
from provisioning.queue import doorbell
from provisioning.services.deployments import plan_deployment, plan_teardown
from tests.provisioning.place import Place, score_file

DB = "private/shop/web/db/database.default"
APP = "private/shop/web/app/program.default"
CACHE = "shared/cache"
ONE = """\
  db:
    type: database
"""
TWO = """\
  db:
    type: database
  app:
    type: program
    params:
      url: http://${resources.db.host}/
      secret: key=${resources.db.password}
"""
SHARED = """\
  cache:
    type: cache
    reference: {mode: shared, name: cache}
"""


@pytest.fixture(autouse=True)
def templates(place: Place) -> None:
    place.template("database", outputs={"host": False, "password": True})
    place.template("program")
    place.template("cache", outputs={"host": False})


def lines(ledger: Path) -> list[str]:
    """Return what the driver did, in order: `create` or `destroy`, and the resource's key."""
    keys = {str(resource.pk): resource.key for resource in Resource.objects.all()}
    done = [line.split() for line in ledger.read_text().splitlines()]
    return [f"{action} {keys[resource]}" for action, resource, *_ in done]


def test_a_deployment_runs_its_steps_in_order_and_stores_outputs(
    place: Place, ledger: Path
) -> None:
    deployment = place.deploy(TWO)

    assert (deployment.status, deployment.status_reason) == ("succeeded", "")
    assert place.states() == {DB: "active", APP: "active"}
    assert place.steps(deployment) == {
        DB: ("ensure", "succeeded", True),
        APP: ("ensure", "succeeded", True),
    }
    assert lines(ledger) == [f"create {DB}", f"create {APP}"]
    host, password = ResourceOutput.objects.filter(resource__key=DB).order_by("key")
    assert (host.key, host.sensitive, host.value, host.ciphertext) == (
        "host",
        False,
        "fake-host",
        "",
    )
    assert (password.key, password.sensitive, password.value) == ("password", True, None)
    assert decrypt(password.ciphertext) == '"fake-password"'


def test_a_deployment_stores_who_consumes_and_who_needs_what(place: Place) -> None:
    deployment = place.deploy(TWO)

    consumers = ResourceConsumer.objects.order_by("alias").values_list(
        "alias", "resource__key", "state", "mode", "deployment"
    )
    assert list(consumers) == [
        ("app", APP, "active", "private", deployment.pk),
        ("db", DB, "active", "private", deployment.pk),
    ]
    edge = ResourceDependency.objects.get()
    assert (edge.source.key, edge.target.key, edge.kind) == (APP, DB, "output")
    assert place.resource(APP).owner_team.name == "everybody"
    assert Workload.objects.get().name == "web"


def test_the_score_text_is_stored_encrypted(place: Place) -> None:
    deployment = place.submit(ONE)

    assert "database" not in deployment.score
    assert score_file("web", ONE) in decrypt(deployment.score).encode().decode("unicode_escape")


def test_a_redeploy_of_the_same_runs_no_driver(place: Place, ledger: Path) -> None:
    place.deploy(TWO)
    ledger.write_text("")

    again = place.deploy(TWO)

    assert again.status == "succeeded"
    assert ledger.read_text() == ""
    assert ResourceConsumer.objects.filter(state=ConsumerState.ACTIVE).count() == 2


def test_a_redeploy_updates_only_what_changed(place: Place, ledger: Path) -> None:
    place.deploy(TWO)
    ledger.write_text("")

    again = place.deploy(TWO.replace("key=", "token="))

    assert again.status == "succeeded"
    assert lines(ledger) == [f"create {APP}"]
    assert place.steps(again) == {APP: ("ensure", "succeeded", True)}


def test_an_update_whose_outputs_stay_does_not_run_its_dependents(
    place: Place, ledger: Path
) -> None:
    place.deploy(TWO)
    ledger.write_text("")

    again = place.deploy(
        TWO.replace("    type: database", "    type: database\n    params: {a: 1}")
    )

    assert place.steps(again) == {
        DB: ("ensure", "succeeded", True),
        APP: ("ensure", "succeeded", False),
    }
    assert lines(ledger) == [f"create {DB}"]
    assert place.states() == {DB: "active", APP: "active"}


def test_what_the_file_no_longer_names_is_removed(place: Place, ledger: Path) -> None:
    place.deploy(TWO)
    ledger.write_text("")

    again = place.deploy(ONE)

    assert again.status == "succeeded"
    assert lines(ledger) == [f"destroy {APP}"]
    assert place.states() == {DB: "active", APP: "deleted"}
    assert ResourceConsumer.objects.get(alias="app").state == "released"
    assert not ResourceDependency.objects.exists()


def test_teardown_destroys_dependents_first(place: Place, ledger: Path) -> None:
    place.deploy(TWO)
    ledger.write_text("")

    teardown = place.teardown()

    assert teardown.status == "succeeded"
    assert lines(ledger) == [f"destroy {APP}", f"destroy {DB}"]
    assert place.states() == {DB: "deleted", APP: "deleted"}
    assert not ResourceOutput.objects.exists()
    assert Workload.objects.get().removed_at is not None


def test_teardown_works_when_rule_and_template_content_are_gone(place: Place, ledger: Path) -> None:
    place.deploy(ONE)
    place.templates["database"].template.rules.all().delete()

    assert place.teardown().status == "succeeded"
    assert lines(ledger) == [f"create {DB}", f"destroy {DB}"]


def test_deploying_again_after_teardown_makes_a_new_resource(place: Place) -> None:
    place.deploy(ONE)
    first = place.resource(DB)
    place.teardown()

    assert place.deploy(ONE).status == "succeeded"
    assert place.resource(DB).pk != first.pk
    assert Workload.objects.get().removed_at is None


def test_a_shared_resource_is_made_once_and_counted(place: Place, ledger: Path) -> None:
    place.deploy(SHARED)
    place.deploy(SHARED, application="billing")

    assert lines(ledger) == [f"create {CACHE}"]
    assert place.resource(CACHE).consumers.filter(state="active").count() == 2
    assert place.resource(CACHE).owner_team.name == "everybody"


def test_the_last_consumer_takes_the_shared_resource_with_it(place: Place, ledger: Path) -> None:
    place.deploy(SHARED)
    place.deploy(SHARED, application="billing")

    place.teardown("shop")
    assert place.states() == {CACHE: "active"}

    place.teardown("billing")
    assert place.states() == {CACHE: "deleted"}
    assert lines(ledger) == [f"create {CACHE}", f"destroy {CACHE}"]


def test_a_plan_writes_nothing(place: Place) -> None:
    application = place.application()

    plan = plan_deployment(
        application=application,
        environment=place.environment,
        files=[("score.yaml", score_file("web", TWO))],
    )

    assert [planned.key for planned in plan.resources] == [DB, APP]
    assert (Deployment.objects.count(), Resource.objects.count()) == (0, 0)


def test_a_plan_of_a_teardown_writes_nothing(place: Place) -> None:
    place.deploy(TWO)

    plan = plan_teardown(application=place.application(), environment=place.environment)

    assert [(step.key, step.action) for step in plan.steps] == [(APP, "destroy"), (DB, "destroy")]
    assert place.states() == {DB: "active", APP: "active"}


def test_a_refused_request_stores_nothing(place: Place) -> None:
    with pytest.raises(PlanError, match="No template serves"):
        place.submit("  odd:\n    type: unknown\n")

    assert (Deployment.objects.count(), AuditEvent.objects.count()) == (0, 0)


def test_steps_ring_once_per_ready_step_up_to_eight(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    rung: list[tuple[str, int]] = []
    monkeypatch.setattr(doorbell, "ring_many", lambda queue, count: rung.append((queue, count)))

    place.submit(TWO)
    place.submit("".join(f"  d{n}:\n    type: database\n" for n in range(12)), application="big")

    assert rung == [("default", 1), ("default", 8)]


def test_a_plan_without_steps_succeeds_at_once(place: Place) -> None:
    place.deploy(ONE)

    with transaction.atomic():
        again = place.submit(ONE)

    assert again.status == "succeeded"
    assert again.finished_at is not None
    assert not Step.objects.filter(deployment=again).exists()


def test_an_alias_bound_elsewhere_leaves_its_old_resource(place: Place, ledger: Path) -> None:
    place.deploy(SHARED)

    place.deploy("  cache:\n    type: cache\n")

    assert place.states() == {
        CACHE: "deleted",
        "private/shop/web/cache/cache.default": "active",
    }
    assert sorted(ResourceConsumer.objects.values_list("resource__key", "state")) == [
        ("private/shop/web/cache/cache.default", "active"),
        (CACHE, "released"),
    ]


def test_every_move_is_in_the_audit_trail(place: Place) -> None:
    deployment = place.deploy(ONE)

    events = AuditEvent.objects.filter(deployment_id=str(deployment.pk)).order_by("pk")
    assert [(e.action, e.subject, e.old_status, e.new_status) for e in events] == [
        ("deployment.waiting", f"deploy {deployment.pk}", "", "waiting"),
        ("deployment.running", f"deploy {deployment.pk}", "waiting", "running"),
        ("resource.provisioning", DB, "", "provisioning"),
        ("consumer.active", "web: db", "", "active"),
        ("step.pending", f"ensure {DB}", "", "pending"),
        ("step.running", f"ensure {DB}", "pending", "running"),
        ("resource.active", DB, "provisioning", "active"),
        ("step.succeeded", f"ensure {DB}", "running", "succeeded"),
        ("deployment.succeeded", f"deploy {deployment.pk}", "running", "succeeded"),
    ]
