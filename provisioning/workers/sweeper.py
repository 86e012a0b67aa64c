"""Put right what a dead worker or a lost doorbell left behind; any number may run at once."""

from __future__ import annotations

import logging
import socket
from datetime import timedelta

from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Greatest, Now

from provisioning.drivers.base import LeaseLostError
from provisioning.drivers.processes import is_alive
from provisioning.drivers.supervisor import LEASE_LOST
from provisioning.drivers.tool import GRACE_SECONDS, Tool
from provisioning.models import Deployment, DeploymentStatus, Step, StepStatus
from provisioning.models.deployments import STARTED_STATUSES
from provisioning.models.steps import UNFINISHED_STEP_STATUSES
from provisioning.queue import doorbell
from provisioning.services import transitions
from provisioning.services.deployments import cancel, end, finish
from provisioning.services.state import events
from provisioning.workers.run import work_folder
from provisioning.workers.tasks import is_anything_ready

logger = logging.getLogger(__name__)

MOST_LOSSES = 5
GRACE = timedelta(seconds=30)
"""After so long a tool whose lease ran out has stopped: its supervisor's grace, and a margin."""


def sweep() -> None:
    """Free steps whose worker is gone, stop and move deployments, ring for what is ready."""
    for pk in cancel.overdue_deployments().order_by("pk").values_list("pk", flat=True):
        cancel.time_out(pk)
    for pk in _lost_steps():
        _free(pk)
    for pk in _left_deployments():
        end.advance(pk)
    # Of a cancelled deployment, too: a lost step is taken up for what its tool has left.
    pending = Step.objects.filter(
        status=StepStatus.PENDING, deployment__status__in=STARTED_STATUSES
    )
    for queue in pending.values_list("queue", flat=True).distinct().order_by("queue"):
        if is_anything_ready(queue):
            doorbell.ring(queue)


def _lost_steps() -> list[int]:
    """Find steps whose worker is silent or, on this host, dead, and those that are recovering."""
    held = Step.objects.filter(status__in=[StepStatus.RUNNING, StepStatus.RECOVERING])
    over = held.filter(lease_until__lt=Now())
    here = held.filter(Q(worker=None) | Q(worker__host=socket.gethostname()))
    dead = [
        pk
        for pk, status, process in here.values_list("pk", "status", "process")
        if status == StepStatus.RECOVERING or not is_alive(process)
    ]
    return [*over.values_list("pk", flat=True), *dead]


def _free(pk: int) -> None:
    """Take a step from its lost worker: it recovers, then another attempt may be made or it fails.

    Its tool may go on for a while after its worker's death. Workers of the same host may take the
    step at once, and follow the tool or stop it. Those of other hosts must wait until the tool's
    supervisor has stopped it for want of a lease.
    """
    with transaction.atomic():
        step = (
            Step.objects.select_for_update(skip_locked=True, no_key=True, of=("self",))
            .select_related("resource", "worker", "deployment")
            .filter(pk=pk, status__in=[StepStatus.RUNNING, StepStatus.RECOVERING])
            .first()
        )
        if step is None or not _is_lost(step):
            return
        if step.status == StepStatus.RUNNING:
            reason = f"Attempt {step.attempt} was lost with its worker."
            transitions.move(
                step,
                StepStatus.RECOVERING,
                reason=reason,
                losses=step.losses + 1,
                lease_until=Greatest(F("lease_until"), Now()) + GRACE,
            )
            logger.warning("Step %s: %s", step.pk, reason)
            step.refresh_from_db(fields=["lease_until"])
        cancelled = step.deployment.status == DeploymentStatus.CANCELLING
        goes_on = _has_left_a_tool(step) if cancelled else _may_go_on(step)
        if goes_on and step.losses < MOST_LOSSES:
            transitions.move(step, StepStatus.PENDING, reason="Another attempt is made.")
            return
    reason = "cancelled" if cancelled else LEASE_LOST
    if (cancelled or step.losses >= MOST_LOSSES) and _has_stopped(step, reason):
        _end(step, cancelled=cancelled)


def _is_lost(step: Step) -> bool:
    """Tell whether a locked step's worker is silent or dead; its lease may have been renewed just now."""
    if step.status == StepStatus.RECOVERING or step.lease_until is None:
        return True
    return _is_over(step) or (_is_of_here(step) and not is_alive(step.process))


def _may_go_on(step: Step) -> bool:
    return _is_of_here(step) or _is_over(step)


def _has_left_a_tool(step: Step) -> bool:
    """Tell whether another attempt on this host would hear a tool to its end and keep its state."""
    return _is_of_here(step) and Tool.left_in(work_folder(step)) is not None


def _has_stopped(step: Step, reason: str) -> bool:
    """Tell whether no tool of the step runs any more; on its own host it is told to stop, and why."""
    if not _is_of_here(step):
        return _is_over(step)
    left = Tool.left_in(work_folder(step))
    if left is None or not left.runs():
        return True
    left.order("stop", reason, GRACE_SECONDS[reason])
    return False


def _is_of_here(step: Step) -> bool:
    return step.worker is None or step.worker.host == socket.gethostname()


def _is_over(step: Step) -> bool:
    """Tell whether a step's lease is over, by the database's clock, not by this host's."""
    return Step.objects.filter(pk=step.pk, lease_until__lt=Now()).exists()


def _end(step: Step, *, cancelled: bool) -> None:
    """End a step whose worker is gone: the last one of too many, or that of a stopped deployment."""
    try:
        events.settle_lost(step)
        if cancelled:
            finish.cancel_step(step, "Its worker was lost, and its tool has stopped.")
        else:
            finish.fail_step(
                step,
                f"It was given up: {step.losses} attempts ended with the worker's death or silence.",
            )
    except LeaseLostError as error:  # somebody else was faster
        logger.info("%s", error)


def _left_deployments() -> list[int]:
    """Find deployments without unfinished steps that were not ended, and those that wait."""
    unfinished = Step.objects.filter(status__in=UNFINISHED_STEP_STATUSES).values("deployment_id")
    busy = Step.objects.filter(finish.AT_WORK).values("deployment_id")
    left = Q(status__in=STARTED_STATUSES) & ~Q(pk__in=unfinished)
    left |= Q(status=DeploymentStatus.CANCELLING) & ~Q(pk__in=busy)
    waiting = Deployment.objects.filter(status=DeploymentStatus.WAITING)
    one_per_environment = waiting.order_by("environment_id", "pk").distinct("environment_id")
    return [
        *Deployment.objects.filter(left).order_by("pk").values_list("pk", flat=True),
        *one_per_environment.values_list("pk", flat=True),
    ]
