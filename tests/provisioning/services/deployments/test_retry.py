from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from provisioning.drivers.fake import FakeDriver
from provisioning.encryption import decrypt
from provisioning.models import AuditEvent, Deployment, Resource, TemplateRule
from provisioning.planning.plan import PlanError
from provisioning.services.deployments import (
    NotRetryableError,
    cancel_deployment,
    retry_deployment,
    submit_teardown,
)
from provisioning.services.people import NotAllowedError
from provisioning.services.pools import create_pool
from provisioning.services.resources.destroy import destroy_resource
from provisioning.workers.tasks import claim
from tests.provisioning.place import Place

KEY = "private/shop/web/{0}/part.default"
BASE, TOP, OTHER = (KEY.format(name) for name in ("base", "top", "other"))
WELL = """\
  base:
    type: part
  top:
    type: part
    params: {of: '${resources.base.host}'}
  other:
    type: part
"""


@pytest.fixture
def shop(place: Place, alice: User) -> Place:
    """Return a place where alice's team has the application shop."""
    place.template("part", outputs={"host": False})
    place.application("shop", alice)
    return place


@pytest.fixture
def failed(shop: Place, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """Return a deployment whose base failed; the next attempt at it succeeds."""
    return fails_once(shop, monkeypatch, WELL, commit="abc", shrink=True, timeout_seconds=90)


def fails_once(
    shop: Place, monkeypatch: pytest.MonkeyPatch, resources: str, **more: Any
) -> Deployment:
    ensure = FakeDriver.ensure

    def fails(self: FakeDriver, resource: Any, run: Any) -> Any:
        if resource.uid.endswith(".base"):
            raise RuntimeError
        return ensure(self, resource, run)

    with monkeypatch.context() as patch:
        patch.setattr(FakeDriver, "ensure", fails)
        deployment = shop.deploy(resources, **more)
    assert deployment.status == "failed"
    return deployment


def created(ledger: Path) -> list[str]:
    """Return the ids of what the driver has made, each as often as it was."""
    return [line.split()[1] for line in ledger.read_text().splitlines()]


def test_a_retry_asks_for_the_same_and_resumes(
    shop: Place, failed: Deployment, alice: User, ledger: Path
) -> None:
    made = created(ledger)
    assert made == [str(shop.resource(OTHER).pk)]

    retry = shop.done(retry_deployment(deployment=failed, actor=alice))

    assert (retry.status, retry.retry_of, retry.requested_by) == ("succeeded", failed, alice)
    assert (retry.commit, retry.shrink, retry.upgrade, retry.timeout_seconds) == (
        "abc",
        True,
        False,
        90,
    )
    assert json.loads(decrypt(retry.score)) == json.loads(decrypt(failed.score))
    assert shop.steps(retry) == {
        BASE: ("ensure", "succeeded", True),
        TOP: ("ensure", "succeeded", True),
    }
    assert len(created(ledger)) == 3
    assert set(created(ledger)) == {str(shop.resource(key).pk) for key in (BASE, TOP, OTHER)}


def test_a_retry_keeps_the_priority_if_who_asks_for_it_may_give_it(
    shop: Place, failed: Deployment, alice: User
) -> None:
    Deployment.objects.update(priority=10)

    assert retry_deployment(deployment=failed, actor=alice).priority == 0
    Deployment.objects.exclude(pk=failed.pk).delete()
    shop.team_named("everybody", alice)
    assert retry_deployment(deployment=failed, actor=alice).priority == 10


def test_a_retry_may_be_given_more_time(shop: Place, failed: Deployment, alice: User) -> None:
    retry = retry_deployment(deployment=failed, actor=alice, timeout_seconds=900)

    assert retry.timeout_seconds == 900


def test_a_cancelled_deployment_is_retried(shop: Place, alice: User) -> None:
    deployment = shop.submit(WELL)
    cancel_deployment(deployment=deployment, actor=alice)

    retry = shop.done(retry_deployment(deployment=deployment, actor=alice))

    assert retry.status == "succeeded"
    assert {shop.resource(key).state for key in (BASE, TOP, OTHER)} == {"active"}


def test_a_teardown_is_retried(shop: Place, alice: User) -> None:
    shop.deploy(WELL)
    teardown = submit_teardown(
        application=shop.application(),
        environment=shop.environment,
        workloads=None,
        actor=None,
    )
    cancel_deployment(deployment=teardown, actor=alice)
    assert set(shop.states().values()) == {"active"}

    retry = shop.done(retry_deployment(deployment=teardown, actor=alice))

    assert (retry.kind, retry.status) == ("teardown", "succeeded")
    assert set(shop.states().values()) == {"deleted"}


def test_asked_twice_there_is_one_retry(failed: Deployment, alice: User) -> None:
    first = retry_deployment(deployment=failed, actor=alice)
    second = retry_deployment(deployment=failed, actor=alice)

    assert first == second
    assert Deployment.objects.filter(retry_of=failed).count() == 1


def test_a_retry_that_failed_is_retried_itself(
    shop: Place, failed: Deployment, alice: User
) -> None:
    first = retry_deployment(deployment=failed, actor=alice)
    cancel_deployment(deployment=first, actor=alice)

    assert retry_deployment(deployment=failed, actor=alice) == first
    second = shop.done(retry_deployment(deployment=first, actor=alice))

    assert (second.retry_of, second.status) == (first, "succeeded")


@pytest.mark.parametrize("status", ["rejected", "expired", "superseded"])
def test_after_a_retry_that_never_started_there_may_be_another(
    failed: Deployment, alice: User, status: str
) -> None:
    first = retry_deployment(deployment=failed, actor=alice)
    Deployment.objects.filter(pk=first.pk).update(status=status, started_at=None)

    second = retry_deployment(deployment=failed, actor=alice)

    assert second != first
    assert second.status == "running"


def test_what_has_not_failed_is_not_retried(shop: Place, alice: User) -> None:
    done, running = shop.deploy(WELL), shop.submit(WELL + "  more:\n    type: part\n")
    before = AuditEvent.objects.count()

    for deployment, state in ((done, "succeeded"), (running, "running")):
        with pytest.raises(NotRetryableError) as refused:
            retry_deployment(deployment=deployment, actor=alice)
        assert str(refused.value) == (
            f"Deployment {deployment.pk} is {state}: only one that failed, was cancelled or timed "
            "out can be retried."
        )

    assert (Deployment.objects.count(), AuditEvent.objects.count()) == (2, before)


def test_what_a_newer_deployment_has_overtaken_is_not_retried(
    shop: Place, failed: Deployment, alice: User
) -> None:
    newer = shop.deploy("  other:\n    type: part\n")

    with pytest.raises(NotRetryableError) as refused:
        retry_deployment(deployment=failed, actor=alice)

    assert str(refused.value) == (
        f"Deployment {failed.pk} is not the newest of its application and environment: a retry "
        f"would take back what deployment {newer.pk} does. Retry that one, or deploy again."
    )
    assert Deployment.objects.count() == 2


@pytest.mark.parametrize("status", ["rejected", "expired", "superseded", "cancelled"])
def test_a_newer_one_that_changed_nothing_is_no_hindrance(
    shop: Place, failed: Deployment, alice: User, status: str
) -> None:
    newer = shop.submit("  other:\n    type: part\n")
    cancel_deployment(deployment=newer, actor=alice)
    Deployment.objects.filter(pk=newer.pk).update(status=status, started_at=None)

    assert retry_deployment(deployment=failed, actor=alice).status == "running"


def test_another_environment_is_no_hindrance(shop: Place, failed: Deployment, alice: User) -> None:
    shop.deploy(WELL, application="billing")

    assert retry_deployment(deployment=failed, actor=alice).status == "running"


def test_what_can_no_longer_be_planned_is_refused_with_the_reason(
    shop: Place, failed: Deployment, alice: User
) -> None:
    TemplateRule.objects.all().delete()
    Resource.objects.exclude(key=OTHER).update(state="deleted")

    with pytest.raises(PlanError, match="No template serves"):
        retry_deployment(deployment=failed, actor=alice)

    assert Deployment.objects.count() == 1


def test_others_may_not_retry(failed: Deployment, bob: User) -> None:
    with pytest.raises(NotAllowedError, match=f"bob may not retry deployment {failed.pk}"):
        retry_deployment(deployment=failed, actor=bob)

    assert Deployment.objects.count() == 1


def test_the_destruction_of_a_resource_is_retried(
    shop: Place, alice: User, charlie: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.deploy("  base:\n    type: part\n    reference: {mode: shared, name: base}\n")
    shop.team_named("everybody", charlie)
    first = destroy_resource(
        resource=shop.resource("shared/base"), actor=charlie, force=True, reason="It was breached."
    )
    cancel_deployment(deployment=first, actor=charlie)
    assert shop.states() == {"shared/base": "active"}

    with pytest.raises(NotAllowedError):
        retry_deployment(deployment=first, actor=alice)
    retry = shop.done(retry_deployment(deployment=first, actor=charlie))

    assert (retry.kind, retry.status, retry.forced, retry.reason) == (
        "maintenance",
        "succeeded",
        True,
        "It was breached.",
    )
    assert shop.states() == {"shared/base": "deleted"}


def test_the_filling_of_a_pool_is_left_to_the_regular_chores(shop: Place, charlie: User) -> None:
    team = shop.team_named("everybody", charlie)
    create_pool(
        environment=shop.environment,
        name="warm",
        version=shop.templates["part"],
        params={},
        team=team,
        size=1,
        max_size=1,
        actor=charlie,
    )
    filling = Deployment.objects.get()
    cancel_deployment(deployment=filling, actor=charlie)

    with pytest.raises(NotRetryableError, match="fills the pool warm, and the workers' regular"):
        retry_deployment(deployment=filling, actor=charlie)

    assert claim("default") is None
