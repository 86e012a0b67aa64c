"""Stop deployments: at somebody's request, or because their time is over.

Steps that no worker has are cancelled at once. The tools that run are told by their workers, which
ask the database several times a second, and the deployment ends with the last of them.
"""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from provisioning.durations import duration_text
from provisioning.exceptions import ConductorError
from provisioning.models import Deployment, DeploymentStatus
from provisioning.models.deployments import NOT_STARTED_STATUSES, TERMINAL_STATUSES
from provisioning.services import transitions
from provisioning.services.deployments.end import advance
from provisioning.services.deployments.finish import cancel_pending
from provisioning.services.deployments.questions import withdraw_questions
from provisioning.services.deployments.rights import require_right
from provisioning.services.deployments.start import allowed_seconds
from provisioning.services.locks import lock_environment


class NotCancellableError(ConductorError):
    """Refuse to cancel a deployment that has ended."""


def cancel_deployment(*, deployment: Deployment, actor: User, reason: str = "") -> Deployment:
    """Cancel a deployment; to cancel it twice is harmless.

    One that has not started is `cancelled` at once, and so is one for which nothing runs; any other
    is `cancelling` until its tools have stopped. Raises NotCancellableError for one that has ended,
    NotAllowedError for others than its application's team and staff.
    """
    require_right(actor, deployment, "cancel")
    who = actor.get_username()
    why = f"Cancelled by {who}: {reason.strip()}" if reason.strip() else f"Cancelled by {who}."
    with transaction.atomic():
        lock_environment(deployment.environment)
        locked = Deployment.objects.select_for_update(no_key=True).get(pk=deployment.pk)
        if locked.status in TERMINAL_STATUSES:
            raise NotCancellableError(
                f"Deployment {locked.pk} has ended already "
                f"({locked.get_status_display().lower()}): there is nothing to cancel."
            )
        if locked.status in NOT_STARTED_STATUSES:
            _cancel_unstarted(locked, who, why)
        elif locked.status == DeploymentStatus.RUNNING:
            _stop(locked, DeploymentStatus.CANCELLED, why, actor=who)
    advance(deployment.pk)
    deployment.refresh_from_db()
    return deployment


def overdue_deployments() -> QuerySet[Deployment]:
    """Select the running deployments whose time is over, on the database's clock."""
    return Deployment.objects.filter(status=DeploymentStatus.RUNNING, deadline__lt=Now())


def time_out(deployment_id: int) -> None:
    """Stop a deployment if its time is over, whoever notices: it ends `timed_out`."""
    found = overdue_deployments().select_related("environment").filter(pk=deployment_id).first()
    if found is None:
        return
    with transaction.atomic():
        lock_environment(found.environment)
        rows = overdue_deployments().select_for_update(no_key=True)
        locked = rows.filter(pk=found.pk).first()
        if locked is None:
            return
        reason = f"It took longer than its time-out of {duration_text(allowed_seconds(locked))}."
        _stop(locked, DeploymentStatus.TIMED_OUT, reason)
    advance(found.pk)


def is_stopping(deployment_id: int) -> bool:
    """Tell whether a deployment was cancelled or timed out."""
    return Deployment.objects.filter(pk=deployment_id, status=DeploymentStatus.CANCELLING).exists()


def _cancel_unstarted(deployment: Deployment, actor: str, reason: str) -> None:
    transitions.move(
        deployment,
        DeploymentStatus.CANCELLED,
        actor=actor,
        reason=reason,
        status_reason=reason,
        finished_at=timezone.now(),
    )
    withdraw_questions([deployment], reason=reason, actor=actor)


def _stop(
    deployment: Deployment,
    ends_as: DeploymentStatus,
    reason: str,
    *,
    actor: str = transitions.SYSTEM,
) -> None:
    transitions.move(
        deployment,
        DeploymentStatus.CANCELLING,
        actor=actor,
        reason=reason,
        status_reason=reason,
        ends_as=ends_as,
    )
    cancel_pending(deployment, actor=actor, reason=reason)
