"""Put right what a dead worker or a lost doorbell left behind; any number may run at once."""

from __future__ import annotations

import logging
import socket
from datetime import timedelta

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from provisioning.drivers.base import LeaseLostError
from provisioning.drivers.work_folder import tool_runs_in
from provisioning.models import Deployment, DeploymentStatus, Step, StepStatus
from provisioning.models.deployments import STARTED_STATUSES, UNFINISHED_STEP_STATUSES
from provisioning.queue import doorbell
from provisioning.services import transitions
from provisioning.services.approvals import expire_approvals
from provisioning.services.deployments import end, finish
from provisioning.services.pools import expire_claims, fill_pools
from provisioning.services.resources.destroy import destroy_unused
from provisioning.workers.run import work_folder
from provisioning.workers.tasks import is_anything_ready

logger = logging.getLogger(__name__)

MOST_ATTEMPTS = 5
GRACE = timedelta(seconds=25)
"""How long a tool may take to stop after its worker's lease was lost."""


def sweep() -> None:
    """Free steps whose worker is gone, move deployments that were left, destroy what is unused.

    Pools are filled, and their overdue claims ended. Approvals that nobody answered expire. The queues in which anything is ready are rung.
    """
    for pk in Step.objects.filter(_silent()).values_list("pk", flat=True):
        _free(pk)
    expire_approvals()
    for pk in _left_deployments():
        end.advance(pk)
    expire_claims()
    fill_pools()
    destroy_unused()
    pending = Step.objects.filter(
        status=StepStatus.PENDING, deployment__status=DeploymentStatus.RUNNING
    )
    for queue in pending.values_list("queue", flat=True).distinct().order_by("queue"):
        if is_anything_ready(queue):
            doorbell.ring(queue)


def _free(pk: int) -> None:
    """Take a step from a worker that is silent: another may claim it, unless it failed too often.

    A tool may go on for a moment after its worker's death, so the step is `recovering` until the
    worker's own host sees that it has ended or, to others, until it must have.
    """
    with transaction.atomic():
        step = (
            Step.objects.select_for_update(skip_locked=True, no_key=True, of=("self",))
            .select_related("resource", "worker", "deployment")
            .filter(_silent(), pk=pk)
            .first()
        )
        if step is None:
            return
        if step.attempt < MOST_ATTEMPTS:
            reason = f"The lease of attempt {step.attempt} was lost."
            if _has_stopped(step):
                transitions.move(step, StepStatus.PENDING, reason=reason, lease_until=None)
            elif step.status == StepStatus.RUNNING:
                transitions.move(
                    step, StepStatus.RECOVERING, reason=reason, lease_until=Now() + GRACE
                )
                logger.warning("Step %s: %s", step.pk, reason)
            return
    _give_up(step)


def _silent() -> Q:
    """Match steps whose lease is over, and those of this host that wait for their tool's end."""
    here = Q(status=StepStatus.RECOVERING, worker__host=socket.gethostname())
    held = Q(status__in=[StepStatus.RUNNING, StepStatus.RECOVERING])
    return here | (held & Q(lease_until__lt=Now()))


def _has_stopped(step: Step) -> bool:
    """Tell whether the next attempt need not wait for the tool of a silent worker's step."""
    recovering_until = step.lease_until if step.status == StepStatus.RECOVERING else None
    if recovering_until is not None and recovering_until < timezone.now():
        return True
    here = step.worker is None or step.worker.host == socket.gethostname()
    return here and not tool_runs_in(work_folder(step))


def _give_up(step: Step) -> None:
    try:
        finish.fail_step(
            step,
            f"It was given up: {step.attempt} attempts in a row ended with the worker's death or "
            "silence.",
        )
    except LeaseLostError as error:  # somebody else was faster
        logger.info("%s", error)


def _left_deployments() -> list[int]:
    """Find deployments without unfinished steps that were not ended, and those that wait."""
    unfinished = Step.objects.filter(status__in=UNFINISHED_STEP_STATUSES).values("deployment_id")
    left = Q(status__in=STARTED_STATUSES) & ~Q(pk__in=unfinished)
    waiting = Deployment.objects.filter(status=DeploymentStatus.WAITING)
    one_per_environment = waiting.order_by("environment_id", "pk").distinct("environment_id")
    return [
        *Deployment.objects.filter(left).order_by("pk").values_list("pk", flat=True),
        *one_per_environment.values_list("pk", flat=True),
    ]
