"""What a doorbell calls: work until nothing is ready."""

from __future__ import annotations

import socket
import time
from uuid import UUID

from django.db import IntegrityError, connection, transaction
from django.db.models.functions import Now

from provisioning.drivers.processes import identity
from provisioning.models import Step, StepStatus
from provisioning.queue import doorbell
from provisioning.queue.lifeline import draining
from provisioning.services import transitions
from provisioning.services.deployments import end
from provisioning.services.locks import lock_limit
from provisioning.workers.heartbeat import current_worker_id, is_draining
from provisioning.workers.lease import lease_time
from provisioning.workers.runner import run_step

LONGEST_SECONDS = 600.0
"""After so long a worker process returns to the queue, so that it can be renewed."""

ONE_AT_A_TIME = "step_one_at_a_time"
LATELY = 100
"""Of how many last begun steps it is remembered whose turn it was."""

_ASKED = """
provisioning_deployment deployment
LEFT JOIN provisioning_application application ON application.id = deployment.application_id
"""
_TEAM = """
COALESCE(application.team_id,
    (SELECT owner_team_id FROM provisioning_resourcepool WHERE id = deployment.pool_id),
    (SELECT owner_team_id FROM provisioning_resource WHERE id = deployment.resource_id))
"""
"""On whose behalf a deployment is: maintenance is its owner's."""

_HELD = f"""
lost AS MATERIALIZED (
    SELECT step.id, step.deployment_id, step.resource_id, step.queue, worker.host
    FROM provisioning_step step
    LEFT JOIN provisioning_worker worker ON worker.id = step.worker_id
    WHERE step.status = 'pending' AND step.lease_until > statement_timestamp()
),
held AS MATERIALIZED (
    SELECT step.queue, resource.environment_id, version.template_id, {_TEAM} AS team_id
    FROM (
        SELECT deployment_id, resource_id, queue FROM provisioning_step
        WHERE status IN ('running', 'recovering')
        UNION ALL
        SELECT deployment_id, resource_id, queue FROM lost
    ) step
    JOIN provisioning_resource resource ON resource.id = step.resource_id
    JOIN provisioning_resourcetemplateversion version ON version.id = resource.template_version_id
    JOIN ({_ASKED}) ON deployment.id = step.deployment_id
),
closed_environment AS MATERIALIZED (
    SELECT environment_id AS id FROM provisioning_maintenancemode WHERE environment_id IS NOT NULL
    UNION ALL
    SELECT environment.id FROM provisioning_environment environment
    WHERE environment.max_concurrent <= (
        SELECT count(*) FROM held WHERE held.environment_id = environment.id)
),
closed_template AS MATERIALIZED (
    SELECT template.id FROM provisioning_resourcetemplate template
    WHERE template.max_concurrent <= (
        SELECT count(*) FROM held WHERE held.template_id = template.id)
)
"""  # noqa: S608 - constant text, as below
"""Which steps' tools may run, and where nothing may begin: in maintenance, or at a limit.

A step that was lost stays with its host for a while: only there its tool may still run. It keeps its
place, and is taken first and also where nothing new may begin, or by a worker that drains, lest its tool
has to be stopped; and of a deployment that is being cancelled, so that what its tool leaves is kept.
"""

_OPEN = """
(deployment.status = 'running'
 AND NOT EXISTS (SELECT 1 FROM provisioning_maintenancemode WHERE environment_id IS NULL)
 AND NOT EXISTS (SELECT 1 FROM provisioning_worker WHERE id = %(worker)s AND draining))
"""
"""Whether steps of a deployment that were not lost may begin."""
_HAS_LOST = """
(deployment.status IN ('running', 'cancelling')
 AND deployment.id IN (SELECT deployment_id FROM lost))
"""
_READY = """
FROM provisioning_step step
JOIN provisioning_resource resource ON resource.id = step.resource_id
JOIN provisioning_resourcetemplateversion version ON version.id = resource.template_version_id
LEFT JOIN lost ON lost.id = step.id
WHERE step.deployment_id = candidate.id AND step.queue = %(queue)s AND step.status = 'pending'
  AND (lost.id IS NULL OR lost.host IS NULL OR lost.host = %(host)s)
  AND (lost.id IS NOT NULL OR (
      candidate.open
      AND NOT EXISTS (SELECT 1 FROM closed_environment WHERE id = resource.environment_id)
      AND NOT EXISTS (SELECT 1 FROM closed_template WHERE id = version.template_id)))
  AND NOT EXISTS (
      SELECT 1 FROM provisioning_step_needs link JOIN provisioning_step needed
          ON needed.id = link.to_step_id
      WHERE link.from_step_id = step.id AND needed.status <> 'succeeded')
  AND NOT EXISTS (
      SELECT 1 FROM provisioning_step busy
      WHERE busy.resource_id = step.resource_id AND busy.status IN ('running', 'recovering'))
"""
_NEXT_SQL = f"""
WITH {_HELD},
team_held AS MATERIALIZED (
    SELECT team_id, count(*) AS steps FROM held WHERE queue = %(queue)s GROUP BY team_id
),
team_served AS MATERIALIZED (
    SELECT {_TEAM} AS team_id, max(lately.started_at) AS at
    FROM (
        SELECT deployment_id, started_at FROM provisioning_step
        WHERE queue = %(queue)s AND started_at IS NOT NULL
        ORDER BY started_at DESC LIMIT {LATELY}
    ) lately
    JOIN ({_ASKED}) ON deployment.id = lately.deployment_id
    GROUP BY 1
)
SELECT ready.id
FROM (
    SELECT deployment.id, {_OPEN} AS open FROM {_ASKED}
    LEFT JOIN team_held ON team_held.team_id = {_TEAM}
    LEFT JOIN team_served ON team_served.team_id = {_TEAM}
    WHERE {_OPEN} OR {_HAS_LOST}
    ORDER BY deployment.id IN (SELECT deployment_id FROM lost WHERE host = %(host)s) DESC,
             deployment.priority DESC, COALESCE(team_held.steps, 0),
             team_served.at NULLS FIRST, deployment.id
    OFFSET 0  -- keeps this a query of its own: its order is the order of the claim
) candidate
CROSS JOIN LATERAL (
    SELECT step.id {_READY}
    ORDER BY lost.id, step.position
    FOR UPDATE OF step SKIP LOCKED LIMIT 1
) ready
LIMIT 1
"""  # noqa: S608
_ANY_SQL = f"""
WITH {_HELD}
SELECT EXISTS (
    SELECT 1 FROM (
        SELECT deployment.id, {_OPEN} AS open FROM provisioning_deployment deployment
        WHERE {_OPEN} OR {_HAS_LOST}
        OFFSET 0
    ) candidate
    CROSS JOIN LATERAL (SELECT 1 {_READY} LIMIT 1) ready
)
"""  # noqa: S608


class _NoPlaceError(Exception):
    """Another claim has taken the last place of a limited environment or template."""


def work(queue: str) -> None:
    """Run ready steps of a queue until there are none, for ten minutes, or until the worker drains."""
    until = time.monotonic() + LONGEST_SECONDS
    while time.monotonic() < until and not draining():
        step = claim(queue)
        if step is None:
            if is_draining():  # the doorbell was for others
                break
            return
        if not run_step(step):
            # This process may be the one at fault: another one goes on in its place.
            doorbell.ring(queue)
            raise SystemExit(0)
        end.advance(step.deployment_id)
    doorbell.ring(queue)


def claim(queue: str) -> Step | None:
    """Take the next ready step of a queue, or return None if there is none.

    The next is one that was lost on this host; else of the highest priority; then of the team for
    which the fewest steps run, and whose last turn is the longest ago; then of the oldest deployment.
    Nothing new is taken in maintenance mode, by a draining worker, or beyond the limit of the
    environment or the template of its resource; what was lost here is nothing new. If more are ready,
    another worker is woken.
    """
    while True:
        try:
            with transaction.atomic():
                step = _next(queue)
                if step is None:
                    return None
                _hold_place(step)
                _take(step)
        except _NoPlaceError:
            continue
        except IntegrityError as error:
            if ONE_AT_A_TIME not in str(error):
                raise
            continue  # another worker began on the same resource a moment ago
        if is_anything_ready(queue):
            doorbell.ring(queue)
        return step


def is_anything_ready(queue: str) -> bool:
    """Tell whether a step of the queue could run now."""
    return _is_ready(queue, None)


def is_paused(queue: str) -> bool:
    """Tell whether this worker takes nothing of a queue: it drains, and lost no step of it itself."""
    return is_draining() and not _is_ready(queue, current_worker_id())


def _is_ready(queue: str, worker: UUID | None) -> bool:
    """Tell whether there is a step for a worker of this host to take, or for any that does not drain."""
    with connection.cursor() as cursor:
        values = {"queue": queue, "host": socket.gethostname(), "worker": worker}
        cursor.execute(_ANY_SQL, values)
        return bool(cursor.fetchone()[0])


def _next(queue: str) -> Step | None:
    with connection.cursor() as cursor:
        values = {"queue": queue, "host": socket.gethostname(), "worker": current_worker_id()}
        cursor.execute(_NEXT_SQL, values)
        row = cursor.fetchone()
    if row is None:
        return None
    return (
        Step.objects.select_related(
            "deployment", "resource__environment", "resource__template_version__template"
        )
        .defer("resource__template_version__archive")
        .get(pk=row[0])
    )


def _hold_place(step: Step) -> None:
    """Count again where there is a limit, while nobody else can take the place; raise _NoPlaceError."""
    held = Step.objects.held()
    environment, template = step.resource.environment, step.resource.template_version.template
    for limited, same in (
        (environment, held.filter(resource__environment=environment)),
        (template, held.filter(resource__template_version__template=template)),
    ):
        if limited.max_concurrent is None:
            continue
        lock_limit(limited)
        keeps_its_place = same.filter(pk=step.pk).exists()  # it was lost a moment ago
        if same.count() >= limited.max_concurrent and not keeps_its_place:
            raise _NoPlaceError


def _take(step: Step) -> None:
    attempt = step.attempt + 1
    transitions.move(
        step,
        StepStatus.RUNNING,
        attempt=attempt,
        worker_id=current_worker_id(),
        process=identity(),
        lease_until=Now() + lease_time(),
        started_at=Now() if step.started_at is None else step.started_at,
    )
