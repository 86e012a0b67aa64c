from __future__ import annotations

from datetime import timedelta

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.db.models import F
from django.db.models.functions import Now

from provisioning.models import AuditEvent, Deployment, Step, Worker
from provisioning.services.deployments import cancel_deployment
from provisioning.services.deployments.cancel import time_out
from provisioning.workers.sweeper import sweep
from provisioning.workers.tasks import claim, work
from tests.provisioning.at_work import working
from tests.provisioning.place import Place

KEY = "private/shop/web/{0}/part.default"
BASE, TOP = KEY.format("base"), KEY.format("top")
CHAIN = """\
  base:
    type: part
    params: {wait: 60}
  top:
    type: part
    params: {of: '${resources.base.host}'}
"""


@pytest.fixture
def shop(place: Place) -> Place:
    place.template("part", outputs={"host": False})
    return place


def fresh(deployment: Deployment) -> Deployment:
    deployment.refresh_from_db()
    return deployment


def is_over(deployment: Deployment) -> None:
    """Let the deployment's time have been over for a second."""
    Deployment.objects.filter(pk=deployment.pk).update(deadline=Now() - timedelta(seconds=1))


def allowed(deployment: Deployment) -> int:
    deployment.refresh_from_db()
    assert deployment.deadline
    assert deployment.started_at
    return round((deployment.deadline - deployment.started_at).total_seconds())


def statuses(deployment: Deployment) -> list[str]:
    events = AuditEvent.objects.filter(subject_type="deployment", subject_id=str(deployment.pk))
    return list(events.order_by("pk").values_list("new_status", flat=True))


def test_a_driver_that_takes_longer_than_its_template_allows_fails_by_a_sentence(
    place: Place,
) -> None:
    place.template("part", outputs={"host": False}, timeout_seconds=1)

    deployment = place.deploy(CHAIN)

    said = (
        "It took longer than the 1 s that part-template allows. The fake was stopped (timed out)."
    )
    step = deployment.steps.get(resource__key=BASE)
    assert (step.status, step.attempt, step.error) == ("failed", 1, said)
    assert (deployment.status, deployment.status_reason) == (
        "failed",
        f"{BASE} failed: {said}\nBlocked by that: {TOP}.",
    )
    assert place.states() == {BASE: "failed", TOP: "deleted"}


def test_the_time_of_a_deployment_is_the_settings_unless_it_asks_for_another(
    shop: Place, settings: LazySettings
) -> None:
    settings.CONDUCTOR_DEPLOYMENT_TIMEOUT_SECONDS = 500

    usual = shop.submit(CHAIN)
    short = shop.submit(CHAIN, application="billing", timeout_seconds=90)

    assert (allowed(usual), allowed(short)) == (500, 90)


def test_its_time_begins_with_its_start(shop: Place) -> None:
    first = shop.submit("  base:\n    type: part\n")
    second = shop.submit("  top:\n    type: part\n", timeout_seconds=90)
    assert (second.status, second.deadline) == ("waiting", None)
    Deployment.objects.filter(pk=second.pk).update(created_at=F("created_at") - timedelta(hours=1))

    work("default")

    assert fresh(first).status == "succeeded"
    assert allowed(second) == 90


def test_a_deployment_whose_time_is_over_is_stopped_by_the_sweep(shop: Place) -> None:
    deployment = shop.submit(CHAIN, timeout_seconds=90)
    is_over(deployment)

    sweep()

    assert (fresh(deployment).status, deployment.status_reason) == (
        "timed_out",
        f"It took longer than its time-out of 1 min 30 s.\nNot begun: {BASE}, {TOP}.",
    )
    assert statuses(deployment) == ["waiting", "running", "cancelling", "timed_out"]
    assert set(deployment.steps.values_list("status", flat=True)) == {"cancelled"}
    assert shop.states() == {BASE: "deleted", TOP: "deleted"}
    assert claim("default") is None


@pytest.mark.django_db(transaction=True)
def test_a_tool_that_runs_when_the_time_is_over_is_told(shop: Place) -> None:
    deployment = shop.submit(CHAIN)

    with working(BASE):
        is_over(deployment)

    assert fresh(deployment).status == "timed_out"
    assert shop.steps(deployment) == {
        BASE: ("ensure", "cancelled", True),
        TOP: ("ensure", "cancelled", False),
    }
    (said,) = AuditEvent.objects.filter(action="step.cancelled", subject=f"ensure {BASE}")
    assert said.reason == "The fake was stopped (timed out)."


def test_a_deployment_whose_workers_are_all_dead_times_out(shop: Place) -> None:
    deployment = shop.submit(CHAIN)
    step = claim("default")
    assert step is not None
    elsewhere = Worker.objects.create(host="another.example", pid=1, last_seen_at=Now())
    Step.objects.filter(pk=step.pk).update(
        worker=elsewhere, lease_until=Now() - timedelta(hours=1), driver_ran=True
    )
    is_over(deployment)

    sweep()
    assert fresh(deployment).status == "cancelling"
    Step.objects.filter(pk=step.pk).update(lease_until=Now() - timedelta(seconds=1))
    sweep()

    assert fresh(deployment).status == "timed_out"
    assert statuses(deployment) == ["waiting", "running", "cancelling", "timed_out"]
    assert shop.states() == {BASE: "failed", TOP: "deleted"}


def test_one_that_is_cancelled_already_does_not_time_out(shop: Place, alice: User) -> None:
    shop.application("shop", alice)
    deployment = shop.submit(CHAIN)
    assert claim("default") is not None
    cancel_deployment(deployment=deployment, actor=alice)
    is_over(deployment)

    time_out(deployment.pk)

    assert (fresh(deployment).status, deployment.ends_as) == ("cancelling", "cancelled")


def test_one_that_times_out_already_is_not_cancelled(shop: Place, alice: User) -> None:
    shop.application("shop", alice)
    deployment = shop.submit(CHAIN)
    assert claim("default") is not None
    is_over(deployment)
    time_out(deployment.pk)

    cancel_deployment(deployment=deployment, actor=alice)

    assert (deployment.status, deployment.ends_as) == ("cancelling", "timed_out")


def test_one_that_has_time_is_left(shop: Place) -> None:
    deployment = shop.submit(CHAIN)

    time_out(deployment.pk)
    sweep()

    assert fresh(deployment).status == "running"
