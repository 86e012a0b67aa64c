"""Somebody joins a shared resource at the moment at which its grace period ends."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from provisioning.models import Deployment, Resource, ResourceConsumer
from provisioning.workers.tasks import work
from tests.faults.test_racing import SHARED, place, race
from tests.provisioning.place import QUEUE, Place, chores

__all__ = ["place"]

pytestmark = pytest.mark.django_db(transaction=True)


def join_against_the_sweeper(place: Place, ledger: Path) -> str:
    """Let one process join while another sweeps; return which of the two outcomes it was."""
    resources = SHARED.replace("wait: 0.1", "wait: 0")
    ledger.write_text("")
    place.deploy(resources, application="first")
    old = Resource.objects.get(state="active")
    Resource.objects.filter(pk=old.pk).update(grace_seconds=600)
    place.teardown("first")
    Resource.objects.filter(pk=old.pk).update(grace_until=timezone.now() - timedelta(seconds=1))
    place.application("second")

    def racer(number: int) -> None:
        if number:
            place.submit(resources, application="second")
        else:
            chores()
        work(QUEUE)

    race(racer, 2)
    chores()
    work(QUEUE)

    old.refresh_from_db()
    joined = Deployment.objects.filter(application__name="second").latest("pk")
    assert joined.status == "succeeded"
    consumer = ResourceConsumer.objects.get(state="active")
    assert consumer.resource.state == "active"
    assert Resource.objects.exclude(state="deleted").get() == consumer.resource
    destroyed = ledger.read_text().count(f"destroy {old.pk}")
    if consumer.resource_id == old.pk:
        assert (old.grace_until, destroyed) == (None, 0)
        outcome = "joined"
    else:
        assert (old.state, destroyed) == ("deleted", 1)
        outcome = "replaced"
    Resource.objects.update(grace_seconds=0)
    place.teardown("second")
    assert not Resource.objects.exclude(state="deleted").exists()
    return outcome


def test_a_join_and_the_end_of_the_grace_have_one_outcome(place: Place, tmp_path: Path) -> None:
    for _ in range(3):
        assert join_against_the_sweeper(place, tmp_path / "ledger") in ("joined", "replaced")


@pytest.mark.faults
def test_a_join_and_the_end_of_the_grace_have_one_outcome_forty_times(
    place: Place, tmp_path: Path
) -> None:
    seen = {join_against_the_sweeper(place, tmp_path / "ledger") for _ in range(40)}

    assert seen == {"joined", "replaced"}
