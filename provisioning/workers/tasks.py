"""What a doorbell calls: work until nothing is ready."""

from __future__ import annotations

import socket
import time

from django.db import IntegrityError, connection, transaction
from django.db.models.functions import Now

from provisioning.models import Step, StepStatus
from provisioning.queue import doorbell
from provisioning.queue.lifeline import draining
from provisioning.services import transitions
from provisioning.services.deployments import end
from provisioning.workers.heartbeat import current_worker_id, this_process
from provisioning.workers.lease import lease_time
from provisioning.workers.runner import run_step

LONGEST_SECONDS = 600.0
"""After so long a worker process returns to the queue, so that it can be renewed."""

ONE_AT_A_TIME = "step_one_at_a_time"

# A step that was lost stays with its host for a while: only there its tool may still run.
_READY = """
FROM provisioning_step step JOIN provisioning_deployment deployment ON deployment.id = step.deployment_id
WHERE step.queue = %s AND step.status = 'pending' AND deployment.status = 'running'
  AND (step.lease_until IS NULL OR step.lease_until <= clock_timestamp() OR step.worker_id IS NULL
      OR EXISTS (SELECT 1 FROM provisioning_worker worker WHERE worker.id = step.worker_id AND worker.host = %s))
  AND NOT EXISTS (
      SELECT 1 FROM provisioning_step_needs link JOIN provisioning_step needed
          ON needed.id = link.to_step_id
      WHERE link.from_step_id = step.id AND needed.status <> 'succeeded')
  AND NOT EXISTS (
      SELECT 1 FROM provisioning_step busy
      WHERE busy.resource_id = step.resource_id AND busy.status IN ('running', 'recovering'))
"""
_NEXT_SQL = f"""
SELECT step.id {_READY}
ORDER BY step.deployment_id, step.position
FOR UPDATE OF step SKIP LOCKED LIMIT 1
"""
_ANY_SQL = f"SELECT EXISTS (SELECT 1 {_READY})"


def work(queue: str) -> None:
    """Run ready steps of a queue until there are none, for ten minutes, or until the worker drains."""
    until = time.monotonic() + LONGEST_SECONDS
    while time.monotonic() < until and not draining():
        step = claim(queue)
        if step is None:
            return
        if not run_step(step):
            # This process may be the one at fault: another one goes on in its place.
            doorbell.ring(queue)
            raise SystemExit(0)
        end.advance(step.deployment_id)
    doorbell.ring(queue)


def claim(queue: str) -> Step | None:
    """Take the next ready step of a queue, or return None if there is none.

    If more are ready, another worker is woken for them.
    """
    while True:
        try:
            with transaction.atomic():
                step = _next(queue)
                if step is None:
                    return None
                _take(step)
        except IntegrityError as error:
            if ONE_AT_A_TIME not in str(error):
                raise
            continue  # another worker began on the same resource a moment ago
        if is_anything_ready(queue):
            doorbell.ring(queue)
        return step


def is_anything_ready(queue: str) -> bool:
    """Tell whether a step of the queue could run now."""
    with connection.cursor() as cursor:
        cursor.execute(_ANY_SQL, [queue, socket.gethostname()])
        return bool(cursor.fetchone()[0])


def _next(queue: str) -> Step | None:
    with connection.cursor() as cursor:
        cursor.execute(_NEXT_SQL, [queue, socket.gethostname()])
        row = cursor.fetchone()
    if row is None:
        return None
    return Step.objects.select_related("resource__template_version__template", "deployment").get(
        pk=row[0]
    )


def _take(step: Step) -> None:
    attempt = step.attempt + 1
    transitions.move(
        step,
        StepStatus.RUNNING,
        attempt=attempt,
        worker_id=current_worker_id(),
        process=this_process(),
        lease_until=Now() + lease_time(),
        started_at=Now() if step.started_at is None else step.started_at,
    )
