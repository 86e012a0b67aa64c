"""Ask once more for what a deployment asked for that did not succeed."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q

from provisioning.exceptions import ConductorError
from provisioning.models import Deployment, DeploymentKind
from provisioning.models.deployments import (
    ENDED_UNSTARTED_STATUSES,
    NOT_STARTED_STATUSES,
    RETRYABLE_STATUSES,
)
from provisioning.services.deployments.priority import kept_priority
from provisioning.services.deployments.requests import Request
from provisioning.services.deployments.rights import require_right
from provisioning.services.deployments.start import start_elsewhere
from provisioning.services.deployments.submit import submit_on_locked
from provisioning.services.locks import lock_environment

_COPIED = (
    "kind", "application", "environment", "score", "workload_names", "upgrade", "shrink", "rollback",
    "commit", "resource", "forced", "ensures", "reason",
)  # fmt: skip


class NotRetryableError(ConductorError):
    """Refuse to retry a deployment, saying why and what to do instead."""


def retry_deployment(
    *, deployment: Deployment, actor: User, timeout_seconds: int | None = None
) -> Deployment:
    """Store a new deployment that asks for the same, and start it if nothing is in its way.

    It may take as long as the first, unless `timeout_seconds` says otherwise. It resumes from what
    failed: what is as it should be is not done twice. Asked again, it returns the retry that there
    is. Raises NotRetryableError, NotAllowedError, or what `submit_deployment` does; nothing is stored
    then.
    """
    require_right(actor, deployment, "retry")
    deployment = Deployment.objects.select_related("environment").get(pk=deployment.pk)
    if found := retry_of(deployment):
        return found
    _check(deployment)
    asked = {name: getattr(deployment, name) for name in _COPIED}
    asked["timeout_seconds"] = timeout_seconds or deployment.timeout_seconds
    asked["priority"] = kept_priority(actor, deployment)
    retry = Deployment(**asked, retry_of=deployment, requested_by=actor)
    retry.plan = deployment.plan  # of maintenance, it says which resources
    request = Request.of(retry)
    with transaction.atomic():
        lock_environment(retry.environment, request.scope)
        if found := retry_of(deployment):
            return found
        _check(deployment)  # somebody may have deployed since
        superseded = submit_on_locked(retry, request, actor)
    for older in superseded:
        start_elsewhere(older)
    return retry


def retry_of(deployment: Deployment) -> Deployment | None:
    """Return the retry that a deployment has; one that ended before it could start is none."""
    return deployment.retries.exclude(status__in=ENDED_UNSTARTED_STATUSES).first()


def newer_than(deployment: Deployment) -> Deployment | None:
    """Return the newest deployment after this one that has changed, or will, what it would."""
    if deployment.kind == DeploymentKind.MAINTENANCE:
        return None
    return (
        Deployment.objects.filter(
            Q(started_at__isnull=False) | Q(status__in=NOT_STARTED_STATUSES),
            application=deployment.application_id,
            environment=deployment.environment_id,
            pk__gt=deployment.pk,
        )
        .exclude(kind=DeploymentKind.MAINTENANCE)
        .order_by("-pk")
        .first()
    )


def _check(deployment: Deployment) -> None:
    if deployment.status not in RETRYABLE_STATUSES:
        raise NotRetryableError(
            f"Deployment {deployment.pk} is {deployment.get_status_display().lower()}: only one that "
            "failed, was cancelled or timed out can be retried."
        )
    if deployment.pool is not None:
        raise NotRetryableError(
            f"Deployment {deployment.pk} fills the pool {deployment.pool.name}, and the workers' "
            "regular chores make by themselves what is missing."
        )
    newer = newer_than(deployment)
    if newer is not None:
        raise NotRetryableError(
            f"Deployment {deployment.pk} is not the newest of its application and environment: a "
            f"retry would take back what deployment {newer.pk} does. Retry that one, or deploy again."
        )
