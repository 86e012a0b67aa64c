"""Scheduled work: the rows by which django-q2 repeats it, and what is wrong with them.

Every worker serves the queue REGULAR beside its own, with one process, so that scheduled work waits
behind no step. A migration stores the rows, and every worker mends them once a minute: whoever can
write into the table could otherwise stop the work, or have another function called.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone
from django_q.models import Schedule, Task

REGULAR = "conductor"
"""A queue of this name is django-q2's default one."""
TEND_POOLS = "provisioning.workers.regular.tend_pools"
"""Also called when a member was claimed or made, so that the next need not wait for the schedule."""
OVERDUE = timedelta(minutes=3)
"""So late is no task if a worker runs: django-q2 looks every 30 seconds."""
LONG_AGO = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Scheduled:
    """Call a function, named with dots, every so many minutes."""

    name: str
    call: str
    minutes: int
    about: str

    @property
    def row(self) -> dict[str, Any]:
        """Return the columns that the row of the schedule must have."""
        return {
            "func": self.call,
            "args": f"{REGULAR!r},",
            "kwargs": None,
            "hook": None,
            "schedule_type": Schedule.MINUTES,
            "minutes": self.minutes,
            "repeats": -1,
            "cluster": REGULAR,
            "intended_date_kwarg": None,
        }


SCHEDULES = (
    Scheduled(
        "conductor pools",
        TEND_POOLS,
        1,
        "ends overdue claims, and fills pools",
    ),
    Scheduled(
        "conductor expiry",
        "provisioning.workers.regular.expire",
        1,
        "ends requests that nobody answered, destroys what nobody has used for long enough, and takes "
        "back the credentials of who left",
    ),
    Scheduled(
        "conductor figures",
        "provisioning.workers.regular.count_figures",
        1,
        "counts what happened, for /metrics",
    ),
    Scheduled(
        "conductor retention",
        "provisioning.workers.regular.forget_old",
        60,
        "removes what is kept for a time only",
    ),
)


@dataclass(frozen=True, slots=True)
class ScheduleState:
    """Hold when a scheduled task runs next, and what is wrong with its row."""

    scheduled: Scheduled
    next_run: datetime | None
    problem: str


def schedule_states() -> list[ScheduleState]:
    """Look at every schedule's row."""
    return [_state(scheduled, list(_rows(scheduled))) for scheduled in SCHEDULES]


def mend_schedules() -> list[str]:
    """Store the rows that are missing, and put right those that are not as they must be.

    Returns what was wrong, a sentence each. One that is merely late is run by the next worker.
    """
    mended = []
    with transaction.atomic():
        for scheduled in SCHEDULES:
            rows = list(_rows(scheduled).select_for_update())
            wrong = _wrong(scheduled, rows)
            if not wrong:
                continue
            mended.append(wrong)
            first = rows[0] if rows else Schedule(name=scheduled.name)
            for column, value in scheduled.row.items():
                setattr(first, column, value)
            first.next_run = timezone.now()
            first.save()
            Schedule.objects.filter(pk__in=[row.pk for row in rows[1:]]).delete()
    return mended


def forget_tasks(before: datetime) -> None:
    """Remove what django-q2 keeps of tasks that failed before a time."""
    Task.objects.filter(stopped__lt=before).delete()


def _rows(scheduled: Scheduled) -> Any:
    return Schedule.objects.filter(name=scheduled.name).order_by("pk")


def _state(scheduled: Scheduled, rows: list[Any]) -> ScheduleState:
    next_run = rows[0].next_run if rows else None
    problem = _wrong(scheduled, rows)
    if not problem and next_run and next_run < timezone.now() - OVERDUE:
        problem = (
            f"The schedule {scheduled.name} is overdue since {next_run:%Y-%m-%d %H:%M} UTC: does a "
            "worker run?"
        )
    return ScheduleState(scheduled, next_run, problem)


def _wrong(scheduled: Scheduled, rows: list[Any]) -> str:
    """Say what is wrong with the rows of a schedule, or return ""."""
    if not rows:
        return f"The schedule {scheduled.name} is missing."
    if len(rows) > 1:
        return f"The schedule {scheduled.name} is there {len(rows)} times."
    if edited := sorted(_edited(scheduled, rows[0])):
        return f"The schedule {scheduled.name} is not as it must be: {', '.join(edited)}."
    return ""


def _edited(scheduled: Scheduled, row: Any) -> Iterator[str]:
    for column, value in scheduled.row.items():
        if (getattr(row, column) or None) != value:
            yield column
    now = timezone.now()
    latest = now + timedelta(minutes=2 * scheduled.minutes)
    # From a time long past django-q2 would count to now, step by step, and do nothing else meanwhile.
    if row.next_run is None or not now - LONG_AGO < row.next_run < latest:
        yield "next_run"
