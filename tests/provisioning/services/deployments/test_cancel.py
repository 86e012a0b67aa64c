from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db.models.functions import Now

from provisioning.drivers.base import DriverError
from provisioning.drivers.fake import FakeDriver
from provisioning.models import (
    Approval,
    AuditEvent,
    Deployment,
    PossibleOrphan,
    Resource,
    ResourceConsumer,
    Step,
    ToolEvent,
    Worker,
)
from provisioning.queue import doorbell
from provisioning.services.deployments import cancel_deployment
from provisioning.services.deployments.cancel import NotCancellableError
from provisioning.services.deployments.finish import begin_ensure
from provisioning.services.people import NotAllowedError
from provisioning.services.resources.destroy import destroy_resource
from provisioning.workers import runner
from provisioning.workers.sweeper import sweep
from provisioning.workers.tasks import claim, work
from tests.provisioning.at_work import working
from tests.provisioning.place import Place
from tests.provisioning.services.owners import CACHE, SHARED, owned

__all__ = ["owned"]

KEY = "private/shop/web/{0}/{1}.default"
BASE, TOP, OTHER = (
    KEY.format("base", "part"),
    KEY.format("top", "part"),
    KEY.format("other", "part"),
)
CHAIN = """\
  base:
    type: part
    params: {wait: %s}
  top:
    type: part
    params: {of: '${resources.base.host}'}
"""
SLOW = CHAIN % 60


@pytest.fixture
def shop(place: Place, alice: User) -> Place:
    """Return a place where alice's team has the application shop."""
    place.template("part", outputs={"host": False})
    place.application("shop", alice)
    return place


def fresh(deployment: Deployment) -> Deployment:
    deployment.refresh_from_db()
    return deployment


def consumers() -> dict[str, str]:
    return dict(ResourceConsumer.objects.order_by("pk").values_list("alias", "state"))


def elsewhere() -> Worker:
    return Worker.objects.create(host="another.example", pid=1, last_seen_at=Now())


def statuses(deployment: Deployment) -> list[str]:
    """Return the statuses that a deployment has had, from the audit trail."""
    events = AuditEvent.objects.filter(subject_type="deployment", subject_id=str(deployment.pk))
    return list(events.order_by("pk").values_list("new_status", flat=True))


def test_a_waiting_deployment_is_cancelled_at_once(shop: Place, alice: User) -> None:
    shop.submit(CHAIN % 0)
    second = shop.submit("  other:\n    type: part\n")
    assert second.status == "waiting"

    cancelled = cancel_deployment(deployment=second, actor=alice, reason="Not today.")

    assert (cancelled.status, cancelled.status_reason) == (
        "cancelled",
        "Cancelled by alice: Not today.",
    )
    assert cancelled.finished_at is not None
    event = AuditEvent.objects.get(action="deployment.cancelled")
    assert (event.actor, event.old_status, event.reason) == (
        "alice",
        "waiting",
        "Cancelled by alice: Not today.",
    )
    assert not Resource.objects.filter(key=OTHER).exists()
    work("default")
    assert not Step.objects.filter(deployment=second).exists()


def test_what_waited_behind_it_starts(shop: Place, alice: User) -> None:
    shop.deploy(SHARED.replace("type: cache", "type: part"))
    going = shop.submit("  other:\n    type: part\n")
    second = shop.submit(SHARED.replace("type: cache", "type: part"), application="billing")
    Step.objects.filter(deployment=going, resource__key=CACHE).update(status="succeeded")
    third = shop.submit(SHARED.replace("type: cache", "type: part"), application="stats")
    assert "asked first" in third.status_reason

    cancel_deployment(deployment=second, actor=alice)

    assert fresh(third).status == "running"


def test_a_question_is_withdrawn(owned: Place, bob: User) -> None:
    deployment = owned.submit(SHARED, application="billing", actor=bob)
    assert deployment.status == "pending_approval"

    cancelled = cancel_deployment(deployment=deployment, actor=bob)

    assert cancelled.status == "cancelled"
    assert Approval.objects.get().status == "withdrawn"
    assert ResourceConsumer.objects.get(deployment=deployment).state == "withdrawn"


def test_an_unconfirmed_deployment_is_cancelled_at_once(shop: Place, alice: User) -> None:
    shared = SHARED.replace("type: cache", "type: part")
    shop.submit(shared + "  other:\n    type: part\n")
    second = shop.submit("  other:\n    type: part\n")
    shop.deploy(shared, application="billing")
    assert fresh(second).status == "pending_confirmation"

    assert cancel_deployment(deployment=second, actor=alice).status == "cancelled"


def test_if_nothing_runs_it_ends_at_once_and_leaves_nothing(shop: Place, alice: User) -> None:
    deployment = shop.submit(SLOW)

    cancel_deployment(deployment=deployment, actor=alice)

    assert (deployment.status, deployment.status_reason) == (
        "cancelled",
        f"Cancelled by alice.\nNot begun: {BASE}, {TOP}.",
    )
    assert statuses(deployment) == ["waiting", "running", "cancelling", "cancelled"]
    assert set(deployment.steps.values_list("status", flat=True)) == {"cancelled"}
    assert shop.states() == {BASE: "deleted", TOP: "deleted"}
    assert consumers() == {"base": "withdrawn", "top": "withdrawn"}
    assert claim("default") is None


@pytest.mark.django_db(transaction=True)
def test_a_running_step_is_told_and_ends_cancelled(shop: Place, alice: User) -> None:
    deployment = shop.submit(SLOW)

    with working(BASE):
        cancel_deployment(deployment=deployment, actor=alice)
        assert deployment.status == "cancelling"
        assert deployment.steps.get(resource__key=TOP).status == "cancelled"

    assert (fresh(deployment).status, deployment.status_reason) == (
        "cancelled",
        f"Cancelled by alice.\nStopped: {BASE}.\nNot begun: {TOP}.",
    )
    assert statuses(deployment) == ["waiting", "running", "cancelling", "cancelled"]
    assert shop.steps(deployment) == {
        BASE: ("ensure", "cancelled", True),
        TOP: ("ensure", "cancelled", False),
    }
    # What was begun is unfinished and wanted until somebody deploys again; the rest never was.
    assert shop.states() == {BASE: "failed", TOP: "deleted"}
    assert consumers() == {"base": "active", "top": "withdrawn"}
    (said,) = AuditEvent.objects.filter(action="step.cancelled", subject=f"ensure {BASE}")
    assert said.reason == "The fake was stopped (cancelled)."


@pytest.mark.django_db(transaction=True)
def test_the_next_deployment_resumes(shop: Place, alice: User) -> None:
    deployment = shop.submit(SLOW)
    with working(BASE):
        cancel_deployment(deployment=deployment, actor=alice)

    again = shop.deploy(CHAIN % 0)

    assert again.status == "succeeded"
    assert shop.states() == {BASE: "active", TOP: "active"}


@pytest.mark.django_db(transaction=True)
def test_a_cancel_reaches_a_step_that_waits_for_its_next_try(
    shop: Place, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "RETRY_SECONDS", (60.0, 60.0))
    deployment = shop.submit("  base:\n    type: part\n    params: {fail: busy}\n")

    with working(BASE):
        cancel_deployment(deployment=deployment, actor=alice)

    step = deployment.steps.get()
    assert (step.status, step.attempt, fresh(deployment).status) == ("cancelled", 1, "cancelled")


def test_what_is_done_all_the_same_is_a_success(
    shop: Place, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure = FakeDriver.ensure

    def too_late(self: FakeDriver, resource: Any, run: Any) -> Any:
        cancel_deployment(deployment=Deployment.objects.get(), actor=alice)
        return ensure(self, resource, run)

    monkeypatch.setattr(FakeDriver, "ensure", too_late)
    deployment = shop.deploy("  base:\n    type: part\n")

    assert (deployment.status, deployment.status_reason) == (
        "succeeded",
        "Cancelled by alice.\nBy then everything had been done.",
    )
    assert statuses(deployment) == ["waiting", "running", "cancelling", "succeeded"]
    assert shop.states() == {BASE: "active"}


def test_a_failure_while_it_is_cancelled_is_told_too(
    shop: Place, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: FakeDriver, resource: Any, run: Any) -> Any:
        cancel_deployment(deployment=Deployment.objects.get(), actor=alice)
        raise DriverError("The disk is full.", permanent=True)

    monkeypatch.setattr(FakeDriver, "ensure", fails)
    deployment = shop.deploy(CHAIN % 0)

    assert (deployment.status, deployment.status_reason) == (
        "cancelled",
        f"Cancelled by alice.\n{BASE} failed: The disk is full.\nNot begun: {TOP}.",
    )


def test_a_deployment_that_has_ended_is_not_cancelled(shop: Place, alice: User) -> None:
    deployment = shop.deploy(CHAIN % 0)
    before = AuditEvent.objects.count()

    with pytest.raises(NotCancellableError) as refused:
        cancel_deployment(deployment=deployment, actor=alice)

    assert str(refused.value) == (
        f"Deployment {deployment.pk} has ended already (succeeded): there is nothing to cancel."
    )
    assert (fresh(deployment).status, AuditEvent.objects.count()) == ("succeeded", before)


def test_to_cancel_twice_is_harmless(shop: Place, alice: User, charlie: User) -> None:
    shop.application("shop", charlie)
    deployment = shop.submit(SLOW)
    assert claim("default") is not None
    cancel_deployment(deployment=deployment, actor=alice)
    before = AuditEvent.objects.count()

    again = cancel_deployment(deployment=deployment, actor=charlie)

    assert (again.status, again.status_reason) == ("cancelling", "Cancelled by alice.")
    assert AuditEvent.objects.count() == before


def test_an_update_that_never_began_leaves_what_there_is(shop: Place, alice: User) -> None:
    shop.deploy(CHAIN % 0)
    deployment = shop.submit(CHAIN % 1)
    assert shop.states()[BASE] == "updating"

    cancel_deployment(deployment=deployment, actor=alice)

    # The wish for the update stands until the next deployment; what was only rechecked is clean.
    assert shop.states() == {BASE: "failed", TOP: "active"}
    assert shop.resource(BASE).applied_mac != ""
    assert consumers() == {"base": "active", "top": "active"}


def test_a_destruction_that_never_began_leaves_what_there_is(shop: Place, alice: User) -> None:
    shop.deploy(CHAIN % 0)
    deployment = shop.submit("  other:\n    type: part\n")
    assert shop.states()[TOP] == "deleting"

    cancel_deployment(deployment=deployment, actor=alice)

    assert shop.states() == {BASE: "active", TOP: "active", OTHER: "deleted"}
    # Nothing uses them any more, so the next deployment of the application destroys them.
    assert shop.teardown().status == "succeeded"
    assert set(shop.states().values()) == {"deleted"}


def test_who_joined_makes_what_the_cancelled_one_would_have(shop: Place, alice: User) -> None:
    shared = SHARED.replace("type: cache", "type: part")
    first = shop.submit(shared)
    joined = shop.submit(shared, application="billing")

    cancel_deployment(deployment=first, actor=alice)
    work("default")

    assert (fresh(first).status, fresh(joined).status) == ("cancelled", "succeeded")
    assert shop.states() == {CACHE: "active"}
    # The work went on for another deployment, so the wish of the cancelled one stands.
    assert set(ResourceConsumer.objects.values_list("state", flat=True)) == {"active"}


def test_others_may_not_cancel(shop: Place, bob: User, charlie: User) -> None:
    deployment = shop.submit(SLOW)

    with pytest.raises(NotAllowedError) as refused:
        cancel_deployment(deployment=deployment, actor=bob)

    assert str(refused.value) == (
        f"bob may not cancel deployment {deployment.pk}: that is for the members of the team "
        "everybody and platform engineers (staff users)."
    )
    assert fresh(deployment).status == "running"
    charlie.is_staff = True
    charlie.save()
    assert cancel_deployment(deployment=deployment, actor=charlie).status == "cancelled"


def test_maintenance_is_cancelled_by_the_owners_of_what_it_is_about(
    shop: Place, alice: User, charlie: User
) -> None:
    shop.deploy(SHARED.replace("type: cache", "type: part"))
    owner = shop.team_named("everybody", charlie).memberships.get(user=charlie).user
    deployment = destroy_resource(
        resource=shop.resource(CACHE), actor=owner, force=True, reason="It was breached."
    )

    with pytest.raises(NotAllowedError, match="that is for the owners of the team everybody"):
        cancel_deployment(deployment=deployment, actor=alice)
    assert fresh(deployment).status == "running"

    assert cancel_deployment(deployment=deployment, actor=owner).status == "cancelled"
    assert shop.states() == {CACHE: "active"}


def test_a_step_whose_worker_is_lost_ends_cancelled_once_its_tool_has_stopped(
    shop: Place, alice: User
) -> None:
    deployment = shop.submit(SLOW)
    step = claim("default")
    assert step is not None
    before = Now() - timedelta(seconds=1)
    Step.objects.filter(pk=step.pk).update(worker=elsewhere(), lease_until=before, driver_ran=True)
    cancel_deployment(deployment=deployment, actor=alice)

    sweep()
    assert Step.objects.get(pk=step.pk).status == "recovering"
    assert fresh(deployment).status == "cancelling"

    Step.objects.filter(pk=step.pk).update(lease_until=Now() - timedelta(seconds=1))
    sweep()
    assert Step.objects.get(pk=step.pk).status == "cancelled"
    assert fresh(deployment).status == "cancelled"
    assert shop.states() == {BASE: "failed", TOP: "deleted"}


def test_a_step_that_was_freed_just_before_the_cancel_never_begins(
    shop: Place, alice: User
) -> None:
    deployment = shop.submit(SLOW)
    step = claim("default")
    assert step is not None
    cancel_deployment(deployment=deployment, actor=alice)
    Step.objects.filter(pk=step.pk).update(status="pending", lease_until=None)

    sweep()

    assert Step.objects.get(pk=step.pk).status == "cancelled"
    assert fresh(deployment).status == "cancelled"


@pytest.fixture
def freed(shop: Place) -> Step:
    """Return a step whose worker was lost while its driver ran, and that waits for its next attempt."""
    shop.submit(SLOW)
    step = claim("default")
    assert step is not None
    begin_ensure(step)
    Step.objects.filter(pk=step.pk).update(
        status="pending", losses=1, lease_until=Now() + timedelta(seconds=30)
    )
    ToolEvent.objects.create(
        resource=step.resource,
        step=step,
        attempt=1,
        sequence=0,
        event="apply_start",
        action="create",
        address="thing.a",
        type="thing",
    )
    return step


def over() -> None:
    """Let so much time pass that the tool of a lost step must have stopped."""
    Step.objects.filter(losses=1).update(lease_until=Now() - timedelta(seconds=1))


def test_a_freed_step_whose_tool_may_still_run_is_waited_for(freed: Step, alice: User) -> None:
    deployment = freed.deployment
    Step.objects.update(worker=elsewhere())
    cancel_deployment(deployment=deployment, actor=alice)
    sweep()
    assert fresh(deployment).status == "cancelling"
    assert [step.status for step in deployment.steps.order_by("position")] == [
        "pending",
        "cancelled",
    ]
    assert claim("default") is None

    over()
    sweep()
    assert fresh(deployment).status == "cancelled"


def test_a_freed_step_whose_tool_may_still_run_is_taken_up_on_its_host(
    freed: Step, alice: User, shop: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancel_deployment(deployment=freed.deployment, actor=alice)
    rung: list[str] = []
    monkeypatch.setattr(doorbell, "ring", rung.append)

    sweep()
    assert rung == ["default"]
    work("default")

    step = Step.objects.get(pk=freed.pk)
    assert (step.status, step.attempt) == ("cancelled", 2)
    assert fresh(freed.deployment).status == "cancelled"
    assert shop.states() == {BASE: "failed", TOP: "deleted"}


def test_what_a_freed_step_that_nobody_took_has_begun_is_unfinished(
    freed: Step, alice: User, shop: Place
) -> None:
    cancel_deployment(deployment=freed.deployment, actor=alice)
    assert shop.states() == {BASE: "provisioning", TOP: "provisioning"}

    over()
    sweep()

    assert Step.objects.get(pk=freed.pk).status == "cancelled"
    assert shop.states() == {BASE: "failed", TOP: "deleted"}
    assert [each.address for each in PossibleOrphan.objects.all()] == ["thing.a"]
    assert not ToolEvent.objects.exists()


def test_a_cancel_does_not_disturb_who_works_on_the_resource_by_now(
    freed: Step, alice: User, shop: Place
) -> None:
    over()
    other = shop.submit(SLOW, application="billing")
    Step.objects.filter(pk=other.steps.order_by("position")[0].pk).update(
        resource=freed.resource, status="running", attempt=1, lease_until=Now()
    )

    cancel_deployment(deployment=freed.deployment, actor=alice)

    assert Step.objects.get(pk=freed.pk).status == "cancelled"
    assert shop.resource(BASE).state == "provisioning"
    assert ToolEvent.objects.exists()


@pytest.mark.parametrize("state", ["active", "deleted"])
def test_a_cancel_leaves_what_another_step_has_done_on_the_resource_since(
    freed: Step, alice: User, shop: Place, state: str
) -> None:
    over()
    Resource.objects.filter(pk=freed.resource_id).update(state=state)

    cancel_deployment(deployment=freed.deployment, actor=alice)

    assert fresh(freed.deployment).status == "cancelled"
    assert shop.resource(BASE).state == state
