from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from provisioning.models import AuditEvent, Resource, ResourceConsumer, ResourceOutput
from provisioning.planning.maintenance import HeldResourceError
from provisioning.planning.plan import PlanError
from provisioning.services.outputs import MASK, resolved_outputs
from provisioning.services.people import NotAllowedError, system_user
from provisioning.services.resources.adopt import AdoptionError, adopt_resource, detach_resource
from provisioning.services.resources.destroy import destroy_resource
from provisioning.services.resources.policy import PolicyError, retain_resource
from tests.provisioning.place import Place

KEY = "shared/legacy"
SHARED = "  db:\n    type: database\n    reference: {mode: shared, name: legacy}\n"
OUTPUTS = {"host": "db.example", "password": "s3cret-of-old"}


@pytest.fixture(autouse=True)
def templates(place: Place) -> None:
    place.template("database", outputs={"host": False, "password": True})


def adopted(place: Place, **more: Any) -> Resource:
    given: dict[str, Any] = {
        "environment": place.environment,
        "name": "legacy",
        "type_": "database",
        "template": place.templates["database"].template,
        "team": place.application().team,
        "outputs": OUTPUTS,
        "actor": system_user(),
    }
    return adopt_resource(**given | more)


def test_an_adopted_resource_serves_its_outputs_and_no_driver_runs(
    place: Place, ledger: Path
) -> None:
    adopted(place)

    deployment = place.deploy(SHARED)

    assert deployment.status == "succeeded"
    assert deployment.plan["resources"][0]["action"] == "reuse"
    assert resolved_outputs(
        application=place.application(), environment=place.environment, actor=None
    ) == {"web": {"db": {"host": "db.example", "password": MASK}}}
    stored = ResourceOutput.objects.get(key="password")
    assert (stored.sensitive, stored.value, "s3cret" in stored.ciphertext) == (True, None, False)
    assert ledger.read_text() == ""


def test_a_consumer_that_leaves_does_not_destroy_it(place: Place, ledger: Path) -> None:
    adopted(place)
    place.deploy(SHARED)

    assert place.teardown().status == "succeeded"

    assert place.states() == {KEY: "active"}
    assert ledger.read_text() == ""


def test_its_params_cannot_be_changed_by_who_uses_it(place: Place, ledger: Path) -> None:
    adopted(place, params={"size": 1})

    with pytest.raises(PlanError, match="was adopted"):
        place.submit(SHARED + "    params: {size: 2}\n")

    assert not ResourceConsumer.objects.exists()
    assert place.deploy(SHARED + "    params: {size: 1}\n").status == "succeeded"
    assert ledger.read_text() == ""


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"outputs": {"host": "x"}}, "password missing"),
        ({"outputs": OUTPUTS | {"port": 1}}, "port not declared"),
        ({"type_": "cache"}, "is for database"),
        ({"name": "Not A Name"}, "is not a name"),
    ],
)
def test_what_does_not_fit_is_refused(place: Place, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(AdoptionError, match=message) as refused:
        adopted(place, **wrong)

    assert "s3cret" not in str(refused.value)
    assert not Resource.objects.exists()


def test_a_name_that_is_taken_is_refused(place: Place) -> None:
    place.deploy(SHARED)

    with pytest.raises(AdoptionError, match="already"):
        adopted(place)

    assert Resource.objects.count() == 1


def test_only_staff_adopts(place: Place, alice: User) -> None:
    with pytest.raises(NotAllowedError):
        adopted(place, actor=alice)

    assert not Resource.objects.exists()


def test_it_is_never_destroyed(place: Place, ledger: Path) -> None:
    resource = adopted(place)

    with pytest.raises(HeldResourceError, match="resource detach"):
        destroy_resource(resource=resource, actor=system_user(), force=True, reason="Away.")
    with pytest.raises(PolicyError, match="resource detach"):
        retain_resource(resource=resource, retain=False, actor=system_user())

    assert place.states() == {KEY: "active"}
    assert place.resource(KEY).deletion_policy == "retain"


def test_detaching_forgets_without_a_driver(place: Place, ledger: Path) -> None:
    place.deploy(SHARED)
    ResourceConsumer.objects.update(state="released")
    ledger.write_text("")

    detach_resource(resource=place.resource(KEY), actor=system_user())

    assert place.states() == {KEY: "deleted"}
    assert not ResourceOutput.objects.exists()
    assert ledger.read_text() == ""
    assert AuditEvent.objects.filter(action="resource.detached", subject=KEY).exists()


def test_detaching_what_is_used_is_refused(place: Place) -> None:
    place.deploy(SHARED)

    with pytest.raises(HeldResourceError, match="Cannot detach legacy, referenced by: shop/web\n"):
        detach_resource(resource=place.resource(KEY), actor=system_user())

    assert place.states() == {KEY: "active"}
    assert ResourceConsumer.objects.get().state == "active"
    assert ResourceOutput.objects.count() == 2


def test_detaching_by_force_breaks_the_consumers(place: Place) -> None:
    place.deploy(SHARED)

    detach_resource(
        resource=place.resource(KEY), actor=system_user(), force=True, reason="It moved."
    )

    assert place.states() == {KEY: "deleted"}
    assert ResourceConsumer.objects.get().state == "broken"
    assert AuditEvent.objects.get(action="resource.detach_forced").reason == "It moved."


def test_detaching_during_work_is_refused_even_by_force(place: Place) -> None:
    deployment = place.submit(SHARED)

    with pytest.raises(HeldResourceError, match=f"deployment {deployment.pk} is at work"):
        detach_resource(resource=place.resource(KEY), actor=system_user(), force=True, reason="x")

    assert place.states() == {KEY: "provisioning"}
    assert ResourceConsumer.objects.get().state == "active"
