from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db.models.functions import Now

from provisioning.drivers.fake import FakeDriver
from provisioning.models import Deployment, Resource, ResourceConsumer
from provisioning.services.deployments import cancel_deployment, retry_deployment
from provisioning.services.deployments.end import advance
from provisioning.services.resources.policy import protect_resource
from provisioning.workers.runner import run_step
from provisioning.workers.sweeper import sweep
from provisioning.workers.tasks import claim, work
from tests.provisioning.place import Place

KEY = "private/shop/web/{0}/part.default"
BASE, TOP, BAD = (KEY.format(name) for name in ("base", "top", "bad"))
CACHE = "shared/cache"
WELL = """\
  base:
    type: part
  top:
    type: part
    params: {of: '${resources.base.host}'}
"""
FAILS = "  bad:\n    type: part\n    params: {fail: 'no', permanent: true, of: '${resources.top.host}'}\n"
SHARED = "  cache:\n    type: part\n    reference: {mode: shared, name: cache}\n"


@pytest.fixture
def shop(place: Place, alice: User) -> Place:
    """Return a place where alice's team has the application shop."""
    place.template("part", outputs={"host": False})
    place.application("shop", alice)
    return place


def rollback_of(deployment: Deployment) -> Deployment:
    deployment.refresh_from_db()
    return deployment.rollbacks.get()


def ledger_lines(ledger: Path, action: str) -> list[str]:
    """Return the keys of what the driver made or destroyed, in that order."""
    keys = {str(pk): key for pk, key in Resource.objects.values_list("pk", "key")}
    lines = [line.split() for line in ledger.read_text().splitlines()]
    return [keys[line[1]] for line in lines if line[0] == action]


def test_it_is_off_unless_asked_for(shop: Place) -> None:
    deployment = shop.deploy(WELL + FAILS)

    assert (deployment.status, deployment.rollback) == ("failed", False)
    assert shop.states() == {BASE: "active", TOP: "active", BAD: "failed"}
    assert Deployment.objects.count() == 1


def test_what_a_failed_deployment_created_is_destroyed_in_reverse_order(
    shop: Place, ledger: Path
) -> None:
    deployment = shop.deploy(WELL + FAILS, rollback=True)

    rollback = rollback_of(deployment)
    assert deployment.status == "failed"
    assert deployment.status_reason == (
        f"{BAD} failed: no\nDeployment {rollback.pk} destroys again what it created: "
        f"{BAD}, {BASE}, {TOP}."
    )
    assert (rollback.kind, rollback.status, rollback.application) == (
        "maintenance",
        "succeeded",
        deployment.application,
    )
    assert rollback.reason == f"Roll-back of deployment {deployment.pk} (failed)."
    assert set(shop.states().values()) == {"deleted"}
    assert ledger_lines(ledger, "create") == [BASE, TOP]
    assert ledger_lines(ledger, "destroy") == [BAD, TOP, BASE]
    assert set(ResourceConsumer.objects.values_list("state", flat=True)) == {"withdrawn"}


def test_the_roll_back_has_the_priority_of_the_deployment(shop: Place) -> None:
    deployment = shop.deploy(WELL + FAILS, rollback=True, priority=7)

    assert rollback_of(deployment).priority == 7


def test_the_roll_back_has_a_plan_that_says_why(shop: Place) -> None:
    rollback = rollback_of(shop.deploy(WELL + FAILS, rollback=True))

    assert {
        (each["key"], each["action"], each["reason"]) for each in rollback.plan["resources"]
    } == {
        (key, "destroy", "made by the deployment that is rolled back") for key in (BASE, TOP, BAD)
    }


def test_a_cancelled_deployment_is_rolled_back(shop: Place, alice: User) -> None:
    deployment = shop.submit(WELL, rollback=True)
    step = claim("default")
    assert step is not None
    run_step(step)
    assert shop.states() == {BASE: "active", TOP: "provisioning"}

    cancel_deployment(deployment=deployment, actor=alice)
    work("default")

    assert (deployment.status, rollback_of(deployment).status) == ("cancelled", "succeeded")
    assert shop.states() == {BASE: "deleted", TOP: "deleted"}


def test_a_timed_out_deployment_is_rolled_back(shop: Place) -> None:
    deployment = shop.submit(WELL, rollback=True)
    step = claim("default")
    assert step is not None
    run_step(step)
    Deployment.objects.update(deadline=Now() - timedelta(seconds=1))

    sweep()
    work("default")

    assert rollback_of(deployment).status == "succeeded"
    assert deployment.status == "timed_out"
    assert shop.states() == {BASE: "deleted", TOP: "deleted"}


def test_what_nothing_was_made_of_needs_no_roll_back(shop: Place, alice: User) -> None:
    deployment = shop.submit(WELL, rollback=True)

    cancel_deployment(deployment=deployment, actor=alice)

    assert deployment.status_reason.endswith("There is nothing to roll back.")
    assert Deployment.objects.count() == 1
    assert shop.states() == {BASE: "deleted", TOP: "deleted"}


def test_a_success_is_not_rolled_back(shop: Place) -> None:
    assert shop.deploy(WELL, rollback=True).status == "succeeded"
    assert Deployment.objects.count() == 1


def test_what_it_updated_and_what_it_joined_stay(shop: Place) -> None:
    shop.deploy(SHARED, application="billing")
    shop.deploy(WELL)

    deployment = shop.deploy(
        SHARED + WELL.replace("type: part\n  top", "type: part\n    params: {n: 2}\n  top") + FAILS,
        rollback=True,
    )

    assert deployment.status == "failed"
    assert shop.states() == {CACHE: "active", BASE: "active", TOP: "active", BAD: "deleted"}
    assert shop.resource(BASE).params == {"n": 2}
    active = ResourceConsumer.objects.filter(state="active", workload__application__name="shop")
    assert set(active.values_list("alias", flat=True)) == {"base", "top", "cache"}


def test_what_others_joined_meanwhile_stays_with_all_that_it_needs(
    shop: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = (
        SHARED.replace("cache", "store") + SHARED + "    params: {of: '${resources.store.host}'}\n"
    )
    ensure = FakeDriver.ensure

    def joined_before(self: FakeDriver, resource: Any, run: Any) -> Any:
        if resource.uid.endswith("bad"):
            shop.submit(SHARED, application="billing")
        return ensure(self, resource, run)

    monkeypatch.setattr(FakeDriver, "ensure", joined_before)
    fails = FAILS.replace("resources.top", "resources.cache")
    deployment = shop.deploy(needed + "  own:\n    type: part\n" + fails, rollback=True)

    rollback = rollback_of(deployment)
    own = KEY.format("own")
    assert deployment.status_reason.endswith(
        f"Deployment {rollback.pk} destroys again what it created: {BAD}, {own}. Others use, or "
        "something holds: shared/cache, shared/store."
    )
    assert shop.states() == {
        "shared/store": "active",
        CACHE: "active",
        own: "deleted",
        BAD: "deleted",
    }


def test_what_is_protected_stays(
    shop: Place, charlie: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    charlie.is_staff = True
    charlie.save()
    ensure = FakeDriver.ensure

    def protected_before(self: FakeDriver, resource: Any, run: Any) -> Any:
        if resource.uid.endswith("bad"):
            protect_resource(resource=shop.resource(TOP), protected=True, actor=charlie)
        return ensure(self, resource, run)

    monkeypatch.setattr(FakeDriver, "ensure", protected_before)

    shop.deploy(WELL + FAILS, rollback=True)

    assert shop.states() == {BASE: "active", TOP: "active", BAD: "deleted"}


def test_if_all_of_it_is_held_nothing_is_rolled_back(shop: Place) -> None:
    shop.template("kept", policy="retain", outputs={"host": False})
    deployment = shop.deploy(
        "  base:\n    type: kept\n    params: {fail: 'no', permanent: true}\n", rollback=True
    )

    assert deployment.status_reason.endswith(
        "Nothing is rolled back: others use it, or it is held (private/shop/web/base/kept.default)."
    )
    assert Deployment.objects.count() == 1


def test_who_joins_a_resource_under_roll_back_gets_a_new_one(shop: Place) -> None:
    deployment = shop.submit(SHARED + "    params: {fail: 'no', permanent: true}\n", rollback=True)
    step = claim("default")
    assert step is not None
    run_step(step)
    advance(deployment.pk)
    old = shop.resource(CACHE)
    assert old.state == "deleting"

    joined = shop.submit(SHARED, application="billing")
    assert joined.status == "waiting"
    shop.done(joined)

    assert joined.status == "succeeded"
    assert shop.resource(CACHE).pk != old.pk
    assert shop.states() == {CACHE: "active"}


def test_a_retry_waits_for_the_roll_back_and_makes_everything_anew(
    shop: Place, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure, failures = FakeDriver.ensure, [RuntimeError()]

    def once(self: FakeDriver, resource: Any, run: Any) -> Any:
        if failures and resource.uid.endswith("top"):
            raise failures.pop()
        return ensure(self, resource, run)

    monkeypatch.setattr(FakeDriver, "ensure", once)
    deployment = shop.submit(WELL, rollback=True)
    for _ in range(2):
        step = claim("default")
        assert step is not None
        run_step(step)
    advance(deployment.pk)
    rollback = rollback_of(deployment)
    assert (deployment.status, rollback.status) == ("failed", "running")

    retry = retry_deployment(deployment=deployment, actor=alice)

    assert (retry.status, retry.rollback, retry.status_reason) == (
        "waiting",
        True,
        f"Waiting for deployment {rollback.pk} of the same application and environment.",
    )
    shop.done(retry)
    assert retry.status == "succeeded"
    assert shop.states() == {BASE: "active", TOP: "active"}


def test_a_roll_back_that_failed_is_retried(
    shop: Place, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: FakeDriver, resource: Any, run: Any) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(FakeDriver, "destroy", refuse)
        rollback = rollback_of(shop.deploy(WELL + FAILS, rollback=True))
    assert rollback.status == "failed"
    assert shop.states() == {BASE: "active", TOP: "active", BAD: "failed"}

    retry = shop.done(retry_deployment(deployment=rollback, actor=alice))

    assert (retry.kind, retry.status, retry.retry_of) == ("maintenance", "succeeded", rollback)
    assert set(shop.states().values()) == {"deleted"}


def test_the_team_sees_and_cancels_the_roll_back(shop: Place, alice: User) -> None:
    deployment = shop.submit(WELL + FAILS, rollback=True)
    for _ in range(3):
        step = claim("default")
        assert step is not None
        run_step(step)
    advance(deployment.pk)
    rollback = rollback_of(deployment)

    assert rollback in Deployment.objects.visible_to(alice)
    cancel_deployment(deployment=rollback, actor=alice)

    assert rollback.status == "cancelled"
    assert shop.states() == {BASE: "active", TOP: "active", BAD: "failed"}
    # The next deployment destroys what is left.
    shop.deploy(SHARED)
    assert shop.states() == {BASE: "deleted", TOP: "deleted", BAD: "deleted", CACHE: "active"}


def test_a_newer_deployment_that_waits_comes_after_the_roll_back(shop: Place) -> None:
    first = shop.submit(WELL + FAILS, rollback=True)
    newer = shop.submit(SHARED)
    assert newer.status == "waiting"

    work("default")

    newer.refresh_from_db()
    rollback = rollback_of(first)
    assert (rollback.status, newer.status) == ("succeeded", "pending_confirmation")
    assert newer.started_at is None
