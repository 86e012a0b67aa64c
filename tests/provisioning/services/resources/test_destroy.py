from __future__ import annotations

from pathlib import Path

import pytest
from django.contrib.auth.models import User

from provisioning.models import AuditEvent, Deployment, Resource, ResourceConsumer, Step
from provisioning.planning.maintenance import HeldResourceError
from provisioning.planning.plan import PlanError
from provisioning.services.deployments import confirm_deployment
from provisioning.services.people import NotAllowedError, system_user
from provisioning.services.resources.adopt import detach_resource
from provisioning.services.resources.destroy import (
    MissingReasonError,
    destroy_resource,
    plan_destroy,
)
from provisioning.services.resources.policy import protect_resource, retain_resource
from provisioning.services.sharing import transfer
from tests.provisioning.place import Place

SHARED = "  db:\n    type: database\n    reference: {mode: shared, name: shared-db}\n"
DEPENDENT = (
    SHARED
    + "  policy:\n    type: policy\n    reference: {mode: shared, name: policy}\n"
    + "    params: {of: '${resources.db.host}'}\n"
)
KEY = "shared/shared-db"


@pytest.fixture(autouse=True)
def templates(place: Place) -> None:
    place.template("database", outputs={"host": False})
    place.template("policy", outputs={"id": False})


def assert_nothing_happened(ledger: Path, key: str = KEY) -> None:
    assert Resource.objects.get(key=key).state == "active"
    assert not Deployment.objects.filter(kind="maintenance").exists()
    assert "destroy" not in ledger.read_text()
    assert not AuditEvent.objects.filter(action__startswith="resource.destroy").exists()
    assert not ResourceConsumer.objects.filter(state="broken").exists()


def test_a_used_resource_is_refused_and_names_all_who_use_it(place: Place, ledger: Path) -> None:
    place.deploy(SHARED, application="frontend-1", workload="frontend-1")
    place.deploy(SHARED, application="frontend-2", workload="site")

    with pytest.raises(HeldResourceError) as refused:
        destroy_resource(resource=place.resource(KEY), actor=system_user())

    assert str(refused.value).startswith(
        "Cannot destroy shared-db, referenced by: frontend-1, frontend-2/site\n"
    )
    assert_nothing_happened(ledger)


def test_a_needed_resource_names_its_dependents(place: Place, ledger: Path) -> None:
    place.deploy(DEPENDENT, application="shop", workload="shop")
    ResourceConsumer.objects.filter(alias="db").update(state="released")

    with pytest.raises(HeldResourceError, match="shared-db, referenced by: policy\n"):
        destroy_resource(resource=place.resource(KEY), actor=system_user())

    assert_nothing_happened(ledger)


def test_force_without_a_reason_is_refused(place: Place, ledger: Path) -> None:
    place.deploy(SHARED)

    with pytest.raises(MissingReasonError, match="--reason"):
        destroy_resource(resource=place.resource(KEY), actor=system_user(), force=True, reason="  ")

    assert_nothing_happened(ledger)


def test_others_than_the_owners_are_refused(place: Place, ledger: Path, alice: User) -> None:
    place.deploy(SHARED)

    with pytest.raises(NotAllowedError, match="alice may not destroy shared-db"):
        destroy_resource(resource=place.resource(KEY), actor=alice, force=True, reason="Mine now.")

    assert_nothing_happened(ledger)


@pytest.mark.parametrize("force", [False, True])
def test_a_later_resource_of_the_same_name_is_not_destroyed(
    place: Place, ledger: Path, force: bool
) -> None:
    place.deploy(SHARED)
    chosen = place.resource(KEY)
    place.teardown()
    place.deploy(SHARED, application="other")
    before = Deployment.objects.count()

    with pytest.raises(HeldResourceError, match="Cannot destroy shared-db: it is gone already"):
        destroy_resource(resource=chosen, actor=system_user(), force=force, reason="Away.")
    with pytest.raises(HeldResourceError, match="Cannot destroy shared-db: it is gone already"):
        plan_destroy(resource=chosen, force=force)

    assert (place.resource(KEY).state, Deployment.objects.count()) == ("active", before)
    assert ResourceConsumer.objects.get(state="active").resource == place.resource(KEY)
    assert ledger.read_text().count("destroy") == 1


def test_a_former_owner_does_not_destroy_what_was_handed_over(
    place: Place, ledger: Path, alice: User
) -> None:
    place.deploy(SHARED)
    place.team_named("everybody", alice)
    chosen = place.resource(KEY)
    transfer(resource=place.resource(KEY), team=place.team_named("data"), actor=alice)

    with pytest.raises(NotAllowedError, match="for the owners of the team data"):
        destroy_resource(resource=chosen, actor=alice, force=True, reason="Away.")
    with pytest.raises(NotAllowedError, match="for the owners of the team data"):
        protect_resource(resource=chosen, protected=True, actor=alice)
    with pytest.raises(NotAllowedError, match="for the owners of the team data"):
        detach_resource(resource=chosen, actor=alice, force=True, reason="Away.")

    assert_nothing_happened(ledger)
    assert place.resource(KEY).protected is False


def test_force_destroys_breaks_the_consumers_and_is_audited(place: Place, ledger: Path) -> None:
    place.deploy(SHARED, application="frontend-1")
    place.deploy(SHARED, application="frontend-2")
    resource = place.resource(KEY)

    deployment = place.done(
        destroy_resource(
            resource=resource, actor=system_user(), force=True, reason="It was breached."
        )
    )

    assert (deployment.kind, deployment.application, deployment.status) == (
        "maintenance",
        None,
        "succeeded",
    )
    uid = deployment.plan["resources"][0]["uid"]
    assert deployment.plan["blast_radius"] == {
        "everybody": {"frontend-1/web": [uid], "frontend-2/web": [uid]}
    }
    assert place.steps(deployment) == {KEY: ("destroy", "succeeded", True)}
    assert place.states() == {KEY: "deleted"}
    assert set(ResourceConsumer.objects.values_list("state", flat=True)) == {"broken"}
    forced = AuditEvent.objects.get(action="resource.destroy_forced")
    assert (forced.actor, forced.subject, forced.reason, forced.deployment_id) == (
        "conductor",
        KEY,
        "It was breached.",
        str(deployment.pk),
    )
    broken = AuditEvent.objects.filter(action="consumer.broken")
    assert [event.reason for event in broken] == ["It was breached."] * 2


def test_a_broken_consumer_gets_a_new_resource_when_it_is_deployed_again(place: Place) -> None:
    place.deploy(SHARED)
    old = place.resource(KEY)
    place.done(destroy_resource(resource=old, actor=system_user(), force=True, reason="Breached."))

    assert place.deploy(SHARED).status == "succeeded"

    new = place.resource(KEY)
    assert (new.state, new.pk != old.pk) == ("active", True)
    assert new.consumers.get().state == "active"


def test_force_leaves_dependents_which_their_next_deployment_brings_about_again(
    place: Place, ledger: Path
) -> None:
    place.deploy(DEPENDENT)
    policy = place.resource("shared/policy")
    place.done(
        destroy_resource(
            resource=place.resource(KEY), actor=system_user(), force=True, reason="Breached."
        )
    )

    assert place.states() == {KEY: "deleted", "shared/policy": "active"}
    event = AuditEvent.objects.get(action="resource.dependency_broken")
    assert (event.subject, event.reason) == (
        "shared/policy",
        "shared/shared-db was taken away: Breached.",
    )
    ledger.write_text("")
    again = place.deploy(DEPENDENT)

    assert again.status == "succeeded"
    assert place.steps(again)["shared/policy"] == ("ensure", "succeeded", True)
    assert f"create {policy.pk}" in ledger.read_text()
    assert list(policy.dependencies.values_list("target", flat=True)) == [place.resource(KEY).pk]


def test_the_application_of_a_dependent_can_be_removed_after_force(place: Place) -> None:
    place.deploy(DEPENDENT)
    place.done(
        destroy_resource(
            resource=place.resource(KEY), actor=system_user(), force=True, reason="Breached."
        )
    )

    assert place.teardown().status == "succeeded"
    assert set(place.states().values()) == {"deleted"}


def test_what_nothing_holds_any_more_goes_with_it(place: Place) -> None:
    place.deploy(DEPENDENT)
    ResourceConsumer.objects.update(state="released")

    deployment = place.done(
        destroy_resource(resource=place.resource("shared/policy"), actor=system_user())
    )

    assert [planned["key"] for planned in deployment.plan["steps"]] == ["shared/policy", KEY]
    assert set(place.states().values()) == {"deleted"}


@pytest.mark.parametrize("hold", ["protected", "retain"])
def test_a_kept_resource_is_refused_although_nobody_uses_it(
    place: Place, ledger: Path, hold: str
) -> None:
    place.deploy(SHARED)
    ResourceConsumer.objects.update(state="released")
    resource = place.resource(KEY)
    if hold == "protected":
        protect_resource(resource=resource, protected=True, actor=system_user())
    else:
        retain_resource(resource=resource, retain=True, actor=system_user())

    with pytest.raises(HeldResourceError, match=hold):
        destroy_resource(resource=resource, actor=system_user())

    assert_nothing_happened(ledger)


def test_planning_to_destroy_writes_nothing(place: Place, ledger: Path) -> None:
    place.deploy(SHARED)

    plan = plan_destroy(resource=place.resource(KEY), force=True)

    assert [(step.key, step.action) for step in plan.steps] == [(KEY, "destroy")]
    assert_nothing_happened(ledger)


def test_it_waits_for_work_on_the_resource_and_looks_again(place: Place, ledger: Path) -> None:
    place.deploy(SHARED)
    ResourceConsumer.objects.update(state="released")
    update = place.submit(SHARED + "    params: {size: 2}\n")
    resource = place.resource(KEY)
    # The deployment that updates it holds it, so only force can be asked for; it waits.
    deployment = destroy_resource(
        resource=resource, actor=system_user(), force=True, reason="Breached."
    )

    assert deployment.status == "waiting"
    assert deployment.status_reason.startswith(f"Waiting for deployment {update.pk} of shop")
    assert Step.objects.filter(deployment=deployment).count() == 0
    assert ResourceConsumer.objects.filter(state="broken").count() == 0
    place.done(deployment)
    assert deployment.status == "succeeded"
    assert place.states() == {KEY: "deleted"}


def test_a_consumer_that_came_while_it_waited_has_to_be_confirmed(place: Place) -> None:
    place.deploy(SHARED)
    place.submit(SHARED + "    params: {size: 2}\n")
    deployment = destroy_resource(
        resource=place.resource(KEY), actor=system_user(), force=True, reason="Breached."
    )
    place.submit(SHARED, application="late")

    place.done(deployment)

    assert deployment.status == "pending_confirmation"
    assert place.states() == {KEY: "active"}
    assert set(ResourceConsumer.objects.values_list("state", flat=True)) == {"active"}
    place.done(confirm_deployment(deployment=deployment, actor=system_user()))
    assert place.states() == {KEY: "deleted"}
    assert set(ResourceConsumer.objects.values_list("state", flat=True)) == {"broken"}


def test_a_destroy_that_waited_fails_if_somebody_has_come(place: Place, ledger: Path) -> None:
    place.deploy(SHARED)
    place.submit(SHARED + "    params: {size: 2}\n")
    ResourceConsumer.objects.update(state="released")
    deployment = destroy_resource(resource=place.resource(KEY), actor=system_user())
    assert deployment.status == "waiting"
    ResourceConsumer.objects.update(state="active")

    place.done(deployment)

    assert deployment.status == "failed"
    assert "referenced by: shop/web" in deployment.status_reason
    assert place.states() == {KEY: "active"}
    assert "destroy" not in ledger.read_text()


def test_what_needs_the_destroyed_is_refused_until_its_maker_comes_back(place: Place) -> None:
    place.deploy(DEPENDENT)
    joins = "  policy:\n    type: policy\n    reference: {mode: shared, name: policy}\n"
    place.deploy(joins, application="other")
    place.done(
        destroy_resource(
            resource=place.resource(KEY), actor=system_user(), force=True, reason="Breached."
        )
    )

    with pytest.raises(PlanError, match="policy needs shared-db, which has been destroyed") as told:
        place.submit(joins, application="other")

    assert told.value.problems[0].hint == "deploy shop again first, which makes it"
    assert place.deploy(DEPENDENT).status == "succeeded"
    assert place.deploy(joins, application="other").status == "succeeded"
