"""Many workers that claim at once: limits hold, and no team is kept waiting."""

from __future__ import annotations

import pytest

from provisioning.models import Deployment, Environment, ResourceTemplate, Step
from provisioning.workers.tasks import claim, work
from tests.faults.test_racing import place, race
from tests.provisioning.place import QUEUE, Place

__all__ = ["place"]

pytestmark = pytest.mark.django_db(transaction=True)

CLAIMERS = 32
MOST = 3


def parts(count: int) -> str:
    return "".join(f"  part-{number}:\n    type: cache\n" for number in range(count))


def keep_to_the_limit(place: Place, rounds: int) -> None:
    """Let 32 processes claim at the same moment under two limits, again and again."""
    place.team = ""
    for number in range(4):
        place.submit(parts(12), application=f"app-{number}")
    Environment.objects.update(max_concurrent=MOST)
    ResourceTemplate.objects.update(max_concurrent=MOST + 1)
    running = Step.objects.filter(status="running")
    for _ in range(rounds):
        race(lambda _number: claim(QUEUE) and None, CLAIMERS)
        assert running.count() == MOST
        running.update(status="succeeded")


def test_limits_hold_with_32_claimers(place: Place) -> None:
    keep_to_the_limit(place, 2)


@pytest.mark.faults
def test_limits_hold_with_32_claimers_again_and_again(place: Place) -> None:
    keep_to_the_limit(place, 15)


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
