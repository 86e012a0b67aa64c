from __future__ import annotations

from typing import Any

import pytest

from provisioning.drivers.base import DriverError
from provisioning.drivers.fake import FakeDriver
from provisioning.models import Deployment, Resource, ResourceConsumer, Step
from provisioning.services.deployments import confirm_deployment
from provisioning.services.deployments.submit import NotConfirmableError
from provisioning.workers.runner import run_step
from provisioning.workers.tasks import claim, work
from tests.provisioning.place import Place

CACHE = "shared/cache"
SHARED = """\
  cache:
    type: cache
    reference: {mode: shared, name: cache}
"""
SIZED = SHARED + "    params: {size: %d}\n"
DB = "  db:\n    type: cache\n"


@pytest.fixture(autouse=True)
def templates(place: Place) -> None:
    place.template("cache", outputs={"host": False})


def fresh(deployment: Deployment) -> Deployment:
    deployment.refresh_from_db()
    return deployment


def test_a_second_deployment_of_the_application_waits_and_names_the_first(place: Place) -> None:
    first = place.submit(DB)

    second = place.submit(SHARED)

    assert (second.status, second.status_reason) == (
        "waiting",
        f"Waiting for deployment {first.pk} of the same application and environment.",
    )
    assert not second.steps.exists()
    assert not Resource.objects.filter(key=CACHE).exists()


def test_a_waiting_deployment_starts_when_its_blocker_has_ended(place: Place) -> None:
    place.submit(DB)
    second = place.submit(SHARED)

    work("default")

    assert fresh(second).status == "succeeded"
    assert place.states()[CACHE] == "active"


def test_a_newer_deployment_supersedes_the_waiting_one(place: Place) -> None:
    place.submit(DB)
    second = place.submit(SHARED)

    third = place.submit(DB + SHARED)

    assert fresh(second).status == "superseded"
    assert second.finished_at is not None
    assert third.status == "waiting"


def test_a_join_does_not_wait_and_has_a_step_of_its_own(place: Place) -> None:
    first = place.submit(SHARED)

    joined = place.submit(SHARED, application="billing")

    assert (first.status, joined.status) == ("running", "running")
    assert joined.steps.get().resource_id == first.steps.get().resource_id
    work("default")
    assert place.steps(first)[CACHE] == ("ensure", "succeeded", True)
    assert place.steps(joined)[CACHE] == ("ensure", "succeeded", False)


def test_if_the_creator_fails_the_joiner_ensures(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = place.submit(SHARED)
    joined = place.submit(SHARED, application="billing")
    ensure, failures = FakeDriver.ensure, ["no"]

    def once(self: FakeDriver, resource: Any, run: Any) -> Any:
        if failures:
            raise DriverError(failures.pop(), permanent=True)
        return ensure(self, resource, run)

    monkeypatch.setattr(FakeDriver, "ensure", once)
    work("default")

    assert (fresh(first).status, fresh(joined).status) == ("failed", "succeeded")
    assert place.states() == {CACHE: "active"}


def test_a_change_waits_for_another_applications_work_on_the_resource(place: Place) -> None:
    uses = SHARED + "  tmp:\n    type: cache\n    params: {of: '${resources.cache.host}'}\n"
    place.deploy(SHARED)
    place.deploy(uses, application="billing")
    first = place.submit(SIZED % 1)  # billing's tmp follows the cache's outputs

    second = place.submit(uses.replace("params: {of", "params: {n: 1, of"), application="billing")

    assert first.steps.count() == 2
    assert (second.status, second.status_reason) == (
        "waiting",
        (
            f"Waiting for deployment {first.pk} of shop, which is at work on "
            "private/billing/web/tmp/cache.default."
        ),
    )
    work("default")
    assert fresh(second).status == "succeeded"


def test_a_join_waits_for_a_destroy_and_then_creates(place: Place) -> None:
    place.deploy(SHARED)
    old = place.resource(CACHE)
    going = place.submit(DB)
    assert place.resource(CACHE).state == "deleting"

    joined = place.submit(SHARED, application="billing")

    assert (joined.status, joined.status_reason) == (
        "waiting",
        f"Waiting for deployment {going.pk} of shop, which is at work on {CACHE}.",
    )
    work("default")
    assert fresh(joined).status == "succeeded"
    assert place.resource(CACHE).pk != old.pk
    assert Resource.objects.get(pk=old.pk).state == "deleted"


def test_who_waits_longer_for_a_resource_comes_first(place: Place) -> None:
    place.deploy(SHARED)
    going = place.submit(DB)
    second = place.submit(SHARED, application="billing")
    Step.objects.filter(deployment=going, resource__key=CACHE).update(status="succeeded")

    third = place.submit(SHARED, application="stats")

    assert third.status_reason == (
        f"Waiting for deployment {second.pk} of billing, which asked first for {CACHE}."
    )


def test_a_changed_plan_is_shown_and_not_applied(place: Place) -> None:
    first = place.submit(SHARED + DB)
    second = place.submit(DB)
    assert {step["action"] for step in second.plan["steps"]} == {"ensure", "destroy"}
    shown = second.plan_digest
    place.deploy(SHARED, application="billing")  # the cache is held by another one now

    work("default")

    assert fresh(first).status == "succeeded"
    assert fresh(second).status == "pending_confirmation"
    assert second.plan_digest != shown
    assert "destroy" not in {step["action"] for step in second.plan["steps"]}
    assert not second.steps.exists()
    assert ResourceConsumer.objects.filter(alias="cache", state="active").count() == 2


def test_a_confirmed_plan_runs(place: Place) -> None:
    place.submit(SHARED + DB)
    second = place.submit(DB)
    place.deploy(SHARED, application="billing")

    confirmed = confirm_deployment(deployment=fresh(second), actor=None)

    assert confirmed.status == "succeeded"
    assert place.states()[CACHE] == "active"
    assert ResourceConsumer.objects.filter(alias="cache", state="active").count() == 1


def test_a_plan_that_changed_again_is_shown_again(place: Place) -> None:
    place.submit(SHARED + DB)
    second = place.submit(DB)
    place.deploy(SHARED, application="billing")
    shown = fresh(second).plan_digest
    place.teardown("billing")

    confirmed = confirm_deployment(deployment=second, actor=None)

    assert confirmed.status == "pending_confirmation"
    assert confirmed.plan_digest != shown


def test_only_what_asks_can_be_confirmed(place: Place) -> None:
    first = place.submit(DB)

    with pytest.raises(NotConfirmableError, match="is running and asks for no confirmation"):
        confirm_deployment(deployment=first, actor=None)
    assert fresh(first).status == "running"


def test_a_waiting_deployment_that_cannot_be_planned_any_more_fails(place: Place) -> None:
    place.submit(DB)
    second = place.submit("  bus:\n    type: cache\n")
    place.templates["cache"].template.rules.all().delete()

    work("default")

    assert fresh(second).status == "failed"
    assert "No template serves" in second.status_reason


def test_a_step_is_not_claimed_while_another_runs_on_its_resource(place: Place) -> None:
    place.submit(SHARED)
    place.submit(SHARED, application="billing")

    first = claim("default")
    assert first is not None
    assert claim("default") is None

    run_step(first)
    second = claim("default")
    assert second is not None
    assert second.resource_id == first.resource_id
