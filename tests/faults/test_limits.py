"""Many workers that claim at once: limits hold, and no team is kept waiting."""

from __future__ import annotations

import multiprocessing
import time

import pytest
from django.db.models.functions import Now

from provisioning.models import Deployment, Environment, ResourceTemplate, Step
from provisioning.services import transitions
from provisioning.workers.tasks import claim, work
from tests.faults.test_racing import place, race
from tests.provisioning.place import QUEUE, Place

__all__ = ["place"]

pytestmark = pytest.mark.django_db(transaction=True)

CLAIMERS = 32
MOST = 3


def parts(count: int) -> str:
    return "".join(f"  part-{number}:\n    type: cache\n" for number in range(count))


def keep_to_the_limit(place: Place, seconds: float) -> None:
    """Let 32 processes claim and release steps under two limits, and count all the while."""
    place.team = ""
    for number in range(4):
        place.submit(parts(12), application=f"app-{number}")
    Environment.objects.update(max_concurrent=MOST)
    ResourceTemplate.objects.update(max_concurrent=MOST + 1)
    most = multiprocessing.get_context("fork").Value("i", 0)

    def racer(_number: int) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and (step := claim(QUEUE) or wait()) is not None:
            running = Step.objects.filter(status__in=["running", "recovering"]).count()
            with most.get_lock():
                most.value = max(most.value, running)
            transitions.move(step, "succeeded", finished_at=Now())

    race(racer, CLAIMERS)

    assert most.value == MOST
    assert Step.objects.filter(status="succeeded").count() > MOST


def wait() -> Step | None:
    """Look a few times more: what others have they soon give back."""
    for _ in range(20):
        time.sleep(0.02)
        if step := claim(QUEUE):
            return step
    return None


def test_limits_hold_with_32_claimers(place: Place) -> None:
    keep_to_the_limit(place, 3)


@pytest.mark.faults
def test_limits_hold_with_32_claimers_for_longer(place: Place) -> None:
    keep_to_the_limit(place, 30)


def test_a_team_with_a_thousand_queued_steps_keeps_nobody_waiting(place: Place) -> None:
    place.team = ""
    large = place.submit(parts(40), application="large")
    resource = large.steps.earliest("pk").resource
    fields = {
        field.name: getattr(resource, field.name)
        for field in resource._meta.fields
        if field.name not in ("id", "key", "name")
    }
    copies = type(resource).objects.bulk_create(
        type(resource)(**fields, key=f"private/large/{number}", name=f"large-{number}")
        for number in range(1000)
    )
    Step.objects.bulk_create(
        Step(deployment=large, resource=copy, action="ensure", position=100 + number)
        for number, copy in enumerate(copies)
    )
    small = place.submit(parts(3), application="small")

    order = []
    for _ in range(6):
        step = claim(QUEUE)
        assert step is not None
        order.append(step.deployment_id)

    assert order == [large.pk, small.pk] * 3
    Deployment.objects.filter(pk=large.pk).update(status="cancelled")
    Step.objects.filter(deployment=small).update(status="pending")
    work(QUEUE)
    small.refresh_from_db()
    assert small.status == "succeeded"
