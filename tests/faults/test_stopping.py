"""Many processes that work, cancel, time out, retry and sweep the same deployments at once."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.db.models.functions import Now

from provisioning.models import (
    Approval,
    AuditEvent,
    Deployment,
    Resource,
    ResourceConsumer,
    Step,
)
from provisioning.models.deployments import TERMINAL_STATUSES
from provisioning.services.approvals import AlreadyDecidedError, approve
from provisioning.services.deployments import (
    NotCancellableError,
    NotRetryableError,
    cancel_deployment,
    retry_deployment,
)
from provisioning.services.deployments.cancel import time_out
from provisioning.services.people import system_user
from provisioning.workers.sweeper import sweep
from provisioning.workers.tasks import work
from tests.faults.test_racing import place, race
from tests.provisioning.place import QUEUE, Place

__all__ = ["place"]

pytestmark = pytest.mark.django_db(transaction=True)

CHAIN = """\
  one:
    type: cache
    params: {wait: 0.05}
  two:
    type: cache
    params: {wait: 0.05, of: '${resources.one.host}'}
  three:
    type: cache
    params: {of: '${resources.two.host}'}
"""
SHARED = "  cache:\n    type: cache\n    reference: {mode: shared, name: cache}\n"


def ends(deployment: Deployment) -> Counter[str]:
    """Count the terminal statuses that a deployment has been given."""
    events = AuditEvent.objects.filter(
        subject_type="deployment", subject_id=str(deployment.pk), new_status__in=TERMINAL_STATUSES
    )
    return Counter(events.values_list("new_status", flat=True))


def settle() -> None:
    """Do all that is left to do."""
    for _ in range(3):
        sweep()
        work(QUEUE)


def check(ledger: Path) -> None:
    """Look whether everything has ended once, and nothing that was never begun exists."""
    for deployment in Deployment.objects.all():
        assert ends(deployment) == {deployment.status: 1}, deployment
    assert not Step.objects.filter(status__in=["pending", "running", "recovering"]).exists()
    assert not ResourceConsumer.objects.filter(state="pending").exists()
    deleted = ResourceConsumer.objects.filter(state="active", resource__state="deleted")
    assert not deleted.exists()
    made = {
        str(pk) for pk in Step.objects.filter(driver_ran=True).values_list("resource", flat=True)
    }
    assert {line.split()[1] for line in ledger.read_text().splitlines()} <= made
    assert not Resource.objects.filter(state__in=["provisioning", "updating", "deleting"]).exists()


def cancel(deployment: Deployment) -> None:
    """Cancel as anybody might, or be told that it is too late."""
    with suppress(NotCancellableError):
        cancel_deployment(deployment=again(deployment), actor=system_user())


def again(deployment: Deployment) -> Deployment:
    """Read a deployment as another process would."""
    return Deployment.objects.get(pk=deployment.pk)


def stop_while_it_runs(place: Place, chance: random.Random, ledger: Path, round_: int) -> None:
    """Let two workers, two who cancel, one who times out and a sweep meet at one deployment."""
    application = f"app-{round_}"
    rollback = chance.random() < 0.5
    deployment = place.submit(CHAIN, application=application, rollback=rollback)
    if chance.random() < 0.5:
        Deployment.objects.filter(pk=deployment.pk).update(
            deadline=Now() + timedelta(seconds=chance.uniform(0, 0.2))
        )
    pauses = [chance.uniform(0, 0.25) for _ in range(6)]
    acts: list[Callable[[], object]] = [
        lambda: work(QUEUE),
        lambda: work(QUEUE),
        lambda: cancel(deployment),
        lambda: cancel(deployment),
        lambda: time_out(deployment.pk),
        sweep,
    ]

    def racer(number: int) -> None:
        time.sleep(pauses[number] if number > 1 else 0)
        acts[number]()

    race(racer, len(acts))
    settle()
    deployment.refresh_from_db()
    assert deployment.status in ("cancelled", "timed_out", "succeeded")
    stopping = AuditEvent.objects.filter(
        subject_id=str(deployment.pk), action="deployment.cancelling"
    )
    assert stopping.count() <= 1
    check(ledger)
    if deployment.status == "succeeded":
        return
    if rollback:
        live = Resource.objects.filter(created_by__name=application).exclude(state="deleted")
        assert not live.exists()
    retry = place.done(retry_deployment(deployment=deployment, actor=system_user()))
    assert retry.status == "succeeded", retry.status_reason


def test_a_deployment_that_is_stopped_from_all_sides_ends_once(
    place: Place, tmp_path: Path
) -> None:
    system_user()
    seed = random.randrange(10**6)
    print("seed", seed)  # noqa: T201 - shown when the test fails
    for round_ in range(2):
        stop_while_it_runs(place, random.Random(seed + round_), tmp_path / "ledger", round_)


@pytest.mark.faults
def test_sixty_deployments_that_are_stopped_from_all_sides_end_once(
    place: Place, tmp_path: Path
) -> None:
    system_user()
    seed = random.randrange(10**6)
    print("seed", seed)  # noqa: T201 - shown when the test fails
    for round_ in range(60):
        stop_while_it_runs(place, random.Random(seed + round_), tmp_path / "ledger", round_)


def test_eight_who_cancel_at_once_cancel_once(place: Place, tmp_path: Path) -> None:
    system_user()
    deployment = place.submit(CHAIN)

    race(lambda number: cancel(deployment), 8)

    deployment.refresh_from_db()
    assert deployment.status == "cancelled"
    check(tmp_path / "ledger")


@pytest.mark.slow
def test_eight_who_retry_at_once_get_one_retry(place: Place, tmp_path: Path) -> None:
    actor = system_user()
    deployment = place.submit(CHAIN)
    cancel(deployment)

    race(
        lambda number: (
            retry_deployment(
                deployment=Deployment.objects.get(pk=deployment.pk),
                actor=User.objects.get(pk=actor.pk),
            )
            and None
        ),
        8,
    )

    retry = Deployment.objects.get(retry_of=deployment)
    assert place.done(retry).status == "succeeded"
    check(tmp_path / "ledger")


@pytest.mark.slow
def test_a_question_is_answered_or_withdrawn_never_both(place: Place, tmp_path: Path) -> None:
    staff = system_user()
    place.team = ""
    place.submit(SHARED)
    work(QUEUE)
    for round_ in range(2):
        asking = place.submit(SHARED, application=f"asks-{round_}")
        assert asking.status == "pending_approval"

        def racer(number: int, asking: Deployment = asking) -> None:
            if number % 2:
                cancel(asking)
                return
            with suppress(AlreadyDecidedError):
                approve(approval=Approval.objects.get(deployment=asking), actor=staff)

        race(racer, 4)
        settle()
        asking.refresh_from_db()
        answer = Approval.objects.get(deployment=asking).status
        assert (asking.status, answer) in {
            ("cancelled", "withdrawn"),
            ("cancelled", "approved"),
            ("succeeded", "approved"),
        }
        check(tmp_path / "ledger")


@pytest.mark.slow
def test_what_waits_is_cancelled_superseded_or_started_once(place: Place, tmp_path: Path) -> None:
    system_user()
    for round_ in range(2):
        application = f"app-{round_}"
        place.submit(CHAIN, application=application)
        waiting = place.submit(SHARED, application=application)
        assert waiting.status == "waiting"

        def racer(
            number: int, waiting: Deployment = waiting, application: str = application
        ) -> None:
            match number:
                case 0:
                    work(QUEUE)
                case 1:
                    cancel(waiting)
                case 2:
                    place.submit(CHAIN, application=application)
                case _:
                    sweep()

        race(racer, 4)
        settle()
        waiting.refresh_from_db()
        assert waiting.status in ("cancelled", "superseded", "succeeded", "pending_confirmation")
        if waiting.status == "pending_confirmation":
            cancel(waiting)
        for left in Deployment.objects.filter(status="pending_confirmation"):
            cancel(left)
        settle()
        check(tmp_path / "ledger")


@pytest.mark.slow
def test_a_deployment_is_not_retried_behind_a_newer_one(place: Place, tmp_path: Path) -> None:
    actor = system_user()
    for round_ in range(2):
        application = f"app-{round_}"
        deployment = place.submit(CHAIN, application=application)
        cancel(deployment)

        def racer(
            number: int, deployment: Deployment = deployment, application: str = application
        ) -> None:
            if number % 2:
                place.submit(SHARED, application=application)
                return
            with suppress(NotRetryableError):
                retry_deployment(deployment=deployment, actor=actor)

        race(racer, 4)
        settle()
        # Whatever came first, what was submitted is what there is.
        rows = Deployment.objects.filter(application__name=application).order_by("-pk")
        assert rows[0].status in ("succeeded", "pending_confirmation")
        for left in rows.filter(status="pending_confirmation"):
            cancel(left)
        settle()
        check(tmp_path / "ledger")
