from __future__ import annotations

import time
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.db import OperationalError
from django.db.models import QuerySet
from django.db.models.functions import Now

from provisioning.drivers.folders import lease_file
from provisioning.models import Deployment, Step
from provisioning.workers.lease import Lease
from provisioning.workers.run import work_folder
from provisioning.workers.tasks import claim
from tests.provisioning.place import new_place
from tests.provisioning.queue.conftest import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def step(transactional_db: None, settings: LazySettings, tmp_path: Path) -> Step:
    """Return a step that was claimed with a lease of one second."""
    settings.CONDUCTOR_LEASE_SECONDS = 1
    place = new_place()
    place.template("part")
    place.submit("  one:\n    type: part\n")
    step = claim("default")
    assert step is not None
    return step


def becomes_lost(lease: Lease, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not lease.lost() and time.monotonic() < until:
        time.sleep(0.02)
    return lease.lost()


def test_a_lease_is_renewed_while_its_step_runs(step: Step) -> None:
    first = Step.objects.get().lease_until

    with Lease(step) as lease:
        assert not becomes_lost(lease, 1.5)

    second = Step.objects.get().lease_until
    assert first is not None
    assert second is not None
    assert second > first


@pytest.mark.parametrize(
    ("ends_as", "reason"), [("cancelled", "cancelled"), ("timed_out", "timed out")]
)
def test_a_lease_tells_why_its_deployment_is_stopped_and_is_kept(
    step: Step, ends_as: str, reason: str
) -> None:
    with Lease(step) as lease:
        assert lease.told() is None
        Deployment.objects.update(status="cancelling", ends_as=ends_as)
        wait_for("it was told", lambda: lease.told() is not None)
        assert lease.told() == reason
        assert not becomes_lost(lease, 1.2)


def test_a_lease_tells_that_the_time_of_its_deployment_is_over(step: Step) -> None:
    with Lease(step) as lease:
        Deployment.objects.update(deadline=Now())
        wait_for("it was told", lambda: lease.told() is not None)
        assert lease.told() == "timed out"


def test_a_lease_that_another_attempt_has_is_lost(step: Step) -> None:
    with Lease(step) as lease:
        Step.objects.update(attempt=2)
        assert becomes_lost(lease, 0.9)


def test_a_lease_that_cannot_be_renewed_is_lost_when_it_ends(
    step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(self: QuerySet[Step], **fields: object) -> int:
        raise OperationalError("the server is gone")

    began = time.monotonic()
    with Lease(step) as lease:
        monkeypatch.setattr(QuerySet, "update", unreachable)
        assert becomes_lost(lease, 3)
        assert time.monotonic() - began >= 0.95
        monkeypatch.undo()


def test_a_lease_that_was_lost_for_want_of_the_database_is_not_taken_up_again(
    step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Lease(step) as lease:
        monkeypatch.setattr(lease, "_valid_until", time.monotonic() - 0.01)
        assert lease.lost()
        lease._renew_once()
        assert lease.lost()


def test_each_renewal_is_told_to_the_supervisor_of_the_steps_tool(step: Step) -> None:
    file = lease_file(work_folder(step))
    with Lease(step):
        first = float(file.read_text())
        end = time.monotonic() + 3
        while float(file.read_text()) == first and time.monotonic() < end:
            time.sleep(0.02)
        assert first < float(file.read_text()) <= time.monotonic() + 1
