"""What is at this moment: read from the rows, since the work is spread over many processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import connection
from django.db.models import Count, Min
from django.utils import timezone

from provisioning.models import AuditEvent, Deployment, Environment, Step, StepStatus, Worker
from provisioning.models.audit import DATABASE_LOST
from provisioning.models.deployments import NOT_STARTED_STATUSES, STARTED_STATUSES

SILENCE = timedelta(seconds=30)
"""A worker that has not ended and has not been heard for so long is dead."""
MOURNED = timedelta(hours=1)
"""After so long a dead worker is no news any more, if others take its queues."""
LATELY = timedelta(hours=1)
"""The time over which the share of failures is taken."""
RECENTLY = timedelta(minutes=10)

_QUEUES_SQL = """
SELECT queue, count(*) FILTER (WHERE unmet = 0), count(*) FILTER (WHERE unmet > 0),
       EXTRACT(epoch FROM clock_timestamp() - min(ready_at) FILTER (WHERE unmet = 0))::float8
FROM (
    SELECT step.queue, count(needed.id) FILTER (WHERE needed.status <> 'succeeded') AS unmet,
           GREATEST(deployment.started_at, max(needed.finished_at)) AS ready_at
    FROM provisioning_step step
    JOIN provisioning_deployment deployment ON deployment.id = step.deployment_id
    LEFT JOIN provisioning_step_needs link ON link.from_step_id = step.id
    LEFT JOIN provisioning_step needed ON needed.id = link.to_step_id
    WHERE step.status = 'pending' AND deployment.status = 'running'
    GROUP BY step.id, deployment.started_at
) pending
GROUP BY queue
"""
_LAG_SQL = """
SELECT percentile_cont(ARRAY[0.5, 0.95, 1]) WITHIN GROUP (ORDER BY lag_ms)
FROM provisioning_stateversion
WHERE lag_ms IS NOT NULL AND created_at > clock_timestamp() - %s
"""
_DEADLOCKS_SQL = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


@dataclass(frozen=True, slots=True)
class Queue:
    """Hold how much waits in a queue, for how many seconds already, and how many workers take it.

    `ready` steps wait for a worker, `blocked` ones for another step.
    """

    name: str
    ready: int = 0
    blocked: int = 0
    oldest_seconds: float = 0.0
    workers: int = 0


@dataclass(frozen=True, slots=True)
class Now:
    """Hold the figures of one moment."""

    deployments: Mapping[str, int]
    """How many are in each status that is not the last."""
    longest_seconds: float
    """For how long the one has been running that has been for the longest."""
    ended: Mapping[str, int]
    """How many ended with each status within LATELY."""
    steps: Mapping[tuple[str, ...], int]
    """How many steps are running or recovering, by queue and status."""
    queues: tuple[Queue, ...]
    workers: Mapping[tuple[str, ...], int]
    """How many there are by version and state: alive, draining or dead."""
    lag_seconds: Mapping[str, float]
    """How long states took, within RECENTLY, from the tool's file into the database, by quantile."""
    deadlocks: int
    outages: int
    """How often a worker could not reach the database within RECENTLY."""


def read_now() -> Now:
    """Read the figures of this moment."""
    named = set(Environment.objects.order_by("queue").values_list("queue", flat=True).distinct())
    workers = list(_known_workers(named))
    deployments, longest = _unfinished()
    ended = Deployment.objects.filter(finished_at__gt=timezone.now() - LATELY)
    outages = AuditEvent.objects.filter(action=DATABASE_LOST, at__gt=timezone.now() - RECENTLY)
    lags = _one(_LAG_SQL, [RECENTLY])
    return Now(
        deployments=deployments,
        longest_seconds=longest,
        ended=dict(ended.values_list("status").annotate(Count("pk")).order_by()),
        steps=_steps(),
        queues=tuple(_queues(workers, named)),
        workers=Counter((worker.version, worker_state(worker)) for worker in workers),
        lag_seconds={
            quantile: ms / 1000
            for quantile, ms in zip(("0.5", "0.95", "1"), lags or (), strict=False)
        },
        deadlocks=_one(_DEADLOCKS_SQL) or 0,
        outages=outages.count(),
    )


def worker_state(worker: Worker) -> str:
    """Tell whether a worker is alive, draining, stopped or dead."""
    if worker.stopped_at is not None:
        return "stopped"
    if worker.last_seen_at < timezone.now() - SILENCE:
        return "dead"
    return "draining" if worker.draining else "alive"


def _known_workers(named: set[str]) -> Iterator[Worker]:
    """Return the workers that have not stopped.

    Of the dead ones, those of the time MOURNED, and those that had a queue which an environment names
    and no living one takes.
    """
    workers = list(Worker.objects.filter(stopped_at=None))
    alive = (worker for worker in workers if worker_state(worker) == "alive")
    left = named.difference(*(worker.queues for worker in alive))
    recently = timezone.now() - SILENCE - MOURNED
    for worker in workers:
        if worker.last_seen_at > recently or left & {*worker.queues}:
            yield worker


def _unfinished() -> tuple[dict[str, int], float]:
    rows = (
        Deployment.objects.filter(status__in=[*NOT_STARTED_STATUSES, *STARTED_STATUSES])
        .values_list("status")
        .annotate(count=Count("pk"), oldest=Min("started_at"))
        .order_by()
    )
    counts = {str(status): 0 for status in [*NOT_STARTED_STATUSES, *STARTED_STATUSES]}
    longest = 0.0
    for status, count, oldest in rows:
        counts[status] = count
        if status in STARTED_STATUSES and oldest is not None:
            longest = max(longest, (timezone.now() - oldest).total_seconds())
    return counts, longest


def _steps() -> dict[tuple[str, ...], int]:
    rows = (
        Step.objects.filter(status__in=[StepStatus.RUNNING, StepStatus.RECOVERING])
        .values_list("queue", "status")
        .annotate(count=Count("pk"))
        .order_by()
    )
    return {(queue, status): count for queue, status, count in rows}


def _queues(workers: list[Worker], named: set[str]) -> Iterator[Queue]:
    """Return every queue that something waits in, an environment names or a worker takes."""
    takers: Counter[str] = Counter()
    for worker in workers:
        alive = worker_state(worker) == "alive"
        takers.update({queue: int(alive) for queue in worker.queues})
    with connection.cursor() as cursor:
        cursor.execute(_QUEUES_SQL)
        pending = {queue: row for queue, *row in cursor}
    for queue in sorted({*pending, *takers, *named}):
        ready, blocked, oldest = pending.get(queue, (0, 0, 0.0))
        yield Queue(queue, ready, blocked, max(oldest or 0.0, 0.0), takers[queue])


def _one(sql: str, params: list[Any] | None = None) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchone()[0]
