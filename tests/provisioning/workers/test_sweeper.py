from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.utils import timezone

from provisioning.drivers.tool import Outcome, Tool
from provisioning.models import AuditEvent, Deployment, PossibleOrphan, Step, ToolEvent, Worker
from provisioning.queue import doorbell
from provisioning.services.deployments import cancel_deployment, end
from provisioning.services.people import system_user
from provisioning.workers.lease import Lease
from provisioning.workers.run import work_folder
from provisioning.workers.runner import run_step
from provisioning.workers.sweeper import MOST_LOSSES, sweep
from provisioning.workers.tasks import claim, work
from tests.provisioning.drivers.runs import MemoryRun
from tests.provisioning.place import Place

ONE = "  db:\n    type: part\n"
DB = "private/shop/web/db/part.default"


@pytest.fixture(autouse=True)
def templates(place: Place) -> None:
    place.template("part", outputs={"host": False})


@pytest.fixture
def rung(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the queues that were rung, in order."""
    queues: list[str] = []
    monkeypatch.setattr(doorbell, "ring", queues.append)
    return queues


def lost(place: Place, **fields: Any) -> Step:
    """Return a step whose worker died a while ago."""
    place.submit(ONE)
    step = claim("default")
    assert step is not None
    Step.objects.filter(pk=step.pk).update(lease_until=Now() - timedelta(seconds=1), **fields)
    return step


def elsewhere() -> Worker:
    return Worker.objects.create(host="another.example", pid=1, last_seen_at=Now())


def test_a_step_whose_lease_is_over_can_be_claimed_again(place: Place, rung: list[str]) -> None:
    step = lost(place)

    sweep()

    stored = Step.objects.get(pk=step.pk)
    assert (stored.status, stored.attempt, rung[-1]) == ("pending", 1, "default")
    event = AuditEvent.objects.get(action="step.recovering", old_status="running")
    assert event.reason == "Attempt 1 was lost with its worker."
    again = claim("default")
    assert again is not None
    assert (again.attempt, again.losses) == (2, 1)


def test_a_step_whose_lease_holds_is_left(place: Place) -> None:
    place.submit(ONE)
    step = claim("default")
    assert step is not None

    sweep()

    assert Step.objects.get(pk=step.pk).status == "running"


def test_a_lost_step_is_finished_by_the_next_worker(place: Place) -> None:
    step = lost(place)
    sweep()

    work("default")
    run_step(step)  # the old worker wakes up at last

    assert Step.objects.get(pk=step.pk).status == "succeeded"
    assert Deployment.objects.get().status == "succeeded"


def test_a_step_of_another_host_is_recovering_until_its_tool_must_have_stopped(
    place: Place,
) -> None:
    step = lost(place, worker=elsewhere())

    sweep()
    assert Step.objects.get(pk=step.pk).status == "recovering"
    assert claim("default") is None
    sweep()
    assert Step.objects.get(pk=step.pk).status == "recovering"

    Step.objects.filter(pk=step.pk).update(lease_until=Now() - timedelta(seconds=1))
    sweep()
    assert Step.objects.get(pk=step.pk).status == "pending"


def of_here(place: Place, **fields: Any) -> Step:
    """Return a running step of this host with a lease that holds."""
    here = Worker.objects.create(host=socket.gethostname(), pid=1, last_seen_at=Now())
    place.submit(ONE)
    step = claim("default")
    assert step is not None
    Step.objects.filter(pk=step.pk).update(worker=here, **fields)
    return step


def test_a_step_whose_process_died_on_this_host_need_not_wait_for_the_lease(place: Place) -> None:
    step = of_here(place, process="1 1.0")

    sweep()

    assert Step.objects.get(pk=step.pk).status == "pending"
    again = claim("default")
    assert again is not None
    assert again.attempt == 2


def test_a_step_whose_process_lives_on_this_host_is_left(place: Place) -> None:
    step = of_here(place)

    sweep()

    assert Step.objects.get(pk=step.pk).status == "running"


def test_a_lost_step_is_kept_for_its_host_while_its_tool_may_run(place: Place) -> None:
    step = of_here(place, process="1 1.0")
    sweep()
    Worker.objects.update(host="another.example")

    assert claim("default") is None

    Step.objects.filter(pk=step.pk).update(lease_until=Now() - timedelta(seconds=1))
    assert claim("default") is not None


def test_a_step_that_was_lost_too_often_fails_and_blocks(place: Place) -> None:
    step = lost(place, losses=MOST_LOSSES - 1)

    sweep()

    stored = Step.objects.get(pk=step.pk)
    assert (stored.status, stored.error) == (
        "failed",
        f"It was given up: {MOST_LOSSES} attempts ended with the worker's death or silence.",
    )
    assert Deployment.objects.get().status == "failed"
    assert place.states() == {DB: "failed"}


def test_what_the_tool_of_a_step_given_up_was_making_is_told(place: Place) -> None:
    step = lost(place, losses=MOST_LOSSES - 1)
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

    sweep()

    assert [each.address for each in PossibleOrphan.objects.all()] == ["thing.a"]
    assert not ToolEvent.objects.exists()


def test_a_step_that_is_given_up_fails_once_its_tool_has_stopped(place: Place) -> None:
    step = lost(place, losses=MOST_LOSSES - 1)
    folder = work_folder(step)
    folder.mkdir(parents=True)
    tool = Tool.start(
        ["/bin/sleep", "60"], run=MemoryRun(folder), folder=folder, environment={"PATH": "/bin"}
    )

    sweep()
    assert Step.objects.get(pk=step.pk).status == "recovering"

    while not tool.wait(0.1):
        pass
    sweep()
    assert Step.objects.get(pk=step.pk).status == "failed"
    assert tool.outcome() == Outcome(-signal.SIGINT, "lease lost")


def test_a_cancelled_step_of_a_lost_worker_without_a_tool_ends(place: Place) -> None:
    step = lost(place)
    deployment = cancel_deployment(deployment=step.deployment, actor=system_user())

    sweep()

    deployment.refresh_from_db()
    assert (Step.objects.get(pk=step.pk).status, deployment.status) == ("cancelled", "cancelled")


@pytest.fixture
def cancelled(place: Place) -> Iterator[Step]:
    """Return a lost step of a cancelled deployment, whose tool runs on this host."""
    step = lost(place)
    folder = work_folder(step)
    folder.mkdir(parents=True)
    tool = Tool.start(
        ["/bin/sleep", "60"], run=MemoryRun(folder), folder=folder, environment={"PATH": "/bin"}
    )
    cancel_deployment(deployment=step.deployment, actor=system_user())
    sweep()
    yield step
    tool.end(MemoryRun(folder), patience=0)


def test_another_attempt_hears_out_the_tool_of_a_cancelled_deployment(cancelled: Step) -> None:
    assert Step.objects.get(pk=cancelled.pk).status == "pending"

    claimed = claim("default")

    assert claimed is not None
    assert (claimed.pk, claimed.attempt) == (cancelled.pk, cancelled.attempt + 1)
    with Lease(claimed) as lease:
        assert lease.told() == "cancelled"


def test_nothing_else_of_a_cancelled_deployment_is_taken(cancelled: Step) -> None:
    Step.objects.filter(pk=cancelled.pk).update(losses=0, lease_until=None)

    assert claim("default") is None


def test_a_cancelled_step_that_nobody_takes_ends_when_its_tool_must_have(cancelled: Step) -> None:
    Step.objects.filter(pk=cancelled.pk).update(lease_until=Now() - timedelta(seconds=1))

    sweep()

    step = Step.objects.select_related("deployment").get(pk=cancelled.pk)
    assert (step.status, step.deployment.status) == ("cancelled", "cancelled")


def test_a_deployment_that_nobody_ended_is_ended(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = place.submit(ONE)
    with monkeypatch.context() as patch:
        patch.setattr(end, "advance", lambda pk: None)  # the worker dies just before
        work("default")
    deployment.refresh_from_db()
    assert deployment.status == "running"

    sweep()

    deployment.refresh_from_db()
    assert deployment.status == "succeeded"


def test_a_waiting_deployment_that_nobody_started_is_started(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = place.submit(ONE)
    second = place.submit(ONE + "  too:\n    type: part\n")
    Step.objects.filter(deployment=first).update(status="succeeded")
    Deployment.objects.filter(pk=first.pk).update(status="succeeded")

    sweep()

    second.refresh_from_db()
    assert second.status == "running"


def test_a_queue_with_ready_steps_is_rung_and_no_other(place: Place, rung: list[str]) -> None:
    place.submit(ONE)
    rung.clear()
    sweep()
    assert rung == ["default"]

    work("default")
    rung.clear()
    sweep()
    assert rung == []


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_host_whose_clock_is_wrong_waits_as_long_for_a_tool_of_another_host(
    place: Place, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    step = lost(place, worker=elsewhere())
    wrong = timedelta(hours=hours)
    monkeypatch.setattr(timezone, "now", lambda: datetime.now(UTC) + wrong)

    sweep()
    sweep()
    assert Step.objects.get(pk=step.pk).status == "recovering"
    assert claim("default") is None

    Step.objects.filter(pk=step.pk).update(lease_until=Now() - timedelta(seconds=1))
    sweep()
    assert Step.objects.get(pk=step.pk).status == "pending"


def test_a_host_whose_clock_is_ahead_ends_no_cancelled_step_whose_tool_may_run(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = lost(place, worker=elsewhere())
    cancel_deployment(deployment=step.deployment, actor=system_user())
    monkeypatch.setattr(timezone, "now", lambda: datetime.now(UTC) + timedelta(hours=1))

    sweep()
    sweep()

    assert Step.objects.get(pk=step.pk).status == "recovering"
