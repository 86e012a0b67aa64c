from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from provisioning.models import Deployment, Step
from provisioning.queue import doorbell
from provisioning.workers import tasks
from provisioning.workers.tasks import claim, is_anything_ready, work
from tests.provisioning.place import Place

CHAIN = """\
  base:
    type: part
  top:
    type: part
    params: {of: '${resources.base.host}'}
"""


@pytest.fixture(autouse=True)
def templates(place: Place) -> None:
    place.template("part", outputs={"host": False})


@pytest.fixture
def rung(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the queues that were rung, in order."""
    queues: list[str] = []
    monkeypatch.setattr(doorbell, "ring", queues.append)
    return queues


def test_a_claim_has_a_lease_on_the_databases_clock(place: Place) -> None:
    place.submit(CHAIN)

    step = claim("default")

    assert step is not None
    stored = Step.objects.get(pk=step.pk)
    assert (stored.status, stored.attempt, step.attempt) == ("running", 1, 1)
    assert stored.lease_until is not None
    left = stored.lease_until - timezone.now()
    assert timedelta(seconds=15) < left <= timedelta(seconds=21)


def test_a_step_is_claimed_once_and_only_when_what_it_needs_has_succeeded(place: Place) -> None:
    place.submit(CHAIN)

    assert claim("default") is not None
    assert claim("default") is None


def test_another_queues_steps_are_left(place: Place) -> None:
    place.submit(CHAIN)

    assert claim("other") is None
    assert not is_anything_ready("other")
    assert is_anything_ready("default")


@pytest.mark.parametrize("status", ["cancelling", "failed"])
def test_steps_of_a_deployment_that_does_not_run_are_left(place: Place, status: str) -> None:
    deployment = place.submit(CHAIN)
    Deployment.objects.filter(pk=deployment.pk).update(status=status, ends_as="cancelled")

    assert claim("default") is None


def test_a_claim_wakes_another_worker_only_if_more_is_ready(place: Place, rung: list[str]) -> None:
    place.submit(CHAIN)
    place.submit("  one:\n    type: part\n", application="billing")
    rung.clear()

    assert claim("default") is not None
    assert rung == ["default"]
    assert claim("default") is not None
    assert rung == ["default"]


def test_work_ends_when_nothing_is_ready_and_rings_no_more(place: Place, rung: list[str]) -> None:
    deployment = place.submit(CHAIN)
    rung.clear()

    work("default")

    deployment.refresh_from_db()
    assert (deployment.status, rung) == ("succeeded", [])


def test_work_rings_again_when_its_time_is_over(
    place: Place, rung: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = place.submit(CHAIN)
    rung.clear()
    monkeypatch.setattr(tasks, "LONGEST_SECONDS", 0.0)

    work("default")

    assert rung == ["default"]
    assert not deployment.steps.exclude(status="pending").exists()


def test_the_oldest_deployment_comes_first(place: Place) -> None:
    place.submit(CHAIN)
    place.submit(CHAIN, application="billing")

    claimed = [claim("default"), claim("default")]

    names = [
        step.deployment.application.name for step in claimed if step and step.deployment.application
    ]
    assert names == ["shop", "billing"]
