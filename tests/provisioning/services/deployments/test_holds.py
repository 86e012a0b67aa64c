from __future__ import annotations

from pathlib import Path

import pytest

from provisioning.models import (
    AuditEvent,
    Deployment,
    Resource,
    ResourceConsumer,
    ResourceDependency,
    Step,
    Workload,
)
from provisioning.services.deployments import end, submit_teardown
from tests.provisioning.place import Place

DB = "private/shop/web/db/database.default"
ONE = "  db:\n    type: database\n"


@pytest.fixture(autouse=True)
def templates(place: Place) -> None:
    place.template("database", outputs={"host": False})
    place.template("kept", policy="retain")


def held(place: Place, ledger: Path, reason: str) -> None:
    """Assert that the submitted teardown left the database as it was, for this reason."""
    ledger.write_text("")
    deployment = place.done(Deployment.objects.latest("pk"))
    step = deployment.steps.get()
    assert (deployment.status, step.status, step.driver_ran) == ("succeeded", "succeeded", False)
    assert place.resource(DB).state == "active"
    assert ledger.read_text() == ""
    assert AuditEvent.objects.get(action="step.succeeded", reason__gt="").reason == reason


@pytest.fixture
def going(place: Place) -> Resource:
    """Return a database whose destroy step is ready."""
    place.deploy(ONE)
    submit_teardown(
        application=place.application(),
        environment=place.environment,
        workloads=None,
        actor=None,
    )
    assert place.resource(DB).state == "deleting"
    return place.resource(DB)


def test_a_consumer_that_came_meanwhile_holds(place: Place, going: Resource, ledger: Path) -> None:
    ResourceConsumer.objects.create(
        resource=going, workload=Workload.objects.get(), alias="x", mode="existing", state="active"
    )

    held(place, ledger, "Not destroyed: workload web of shop uses it.")


def test_a_live_dependent_holds(place: Place, going: Resource, ledger: Path) -> None:
    other = Resource.objects.get(pk=going.pk)
    other.pk, other.key, other.name, other.state = None, "shared/other", "other", "active"
    other._state.adding = True
    other.pk = "00000000-0000-4000-8000-000000000001"
    other.save()
    ResourceDependency.objects.create(source=other, target=going, kind="strong")

    held(place, ledger, "Not destroyed: shared/other needs it.")


def test_protection_holds(place: Place, going: Resource, ledger: Path) -> None:
    Resource.objects.filter(pk=going.pk).update(protected=True)

    held(place, ledger, "Not destroyed: it is protected.")


def test_the_policy_retain_holds(place: Place, going: Resource, ledger: Path) -> None:
    Resource.objects.filter(pk=going.pk).update(deletion_policy="retain")

    held(place, ledger, "Not destroyed: its deletion policy is retain.")


def test_a_retained_resource_outlives_its_last_consumer(place: Place) -> None:
    place.deploy("  store:\n    type: kept\n")

    teardown = place.teardown()

    assert teardown.status == "succeeded"
    assert list(place.states().values()) == ["active"]
    assert ResourceConsumer.objects.get().state == "released"


def test_what_was_never_brought_about_is_deleted_without_a_driver(
    place: Place, ledger: Path
) -> None:
    blocked = place.submit("  db:\n    type: database\n    params: {fail: x, permanent: true}\n")
    Step.objects.filter(deployment=blocked).update(status="failed")
    end.advance(blocked.pk)
    teardown = place.teardown()

    assert place.steps(teardown)[DB] == ("destroy", "succeeded", False)
    assert place.resource(DB).state == "deleted"
    assert ledger.read_text() == ""
