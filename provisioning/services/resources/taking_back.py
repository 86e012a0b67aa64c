"""Take back what those were given who use a resource no more, such as a role with its password.

Whoever leaves by a plan is seen to by the plan itself. This is for those who were put out, whose
deployment was withdrawn, or whose leaving failed.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone

from provisioning.exceptions import ConductorError
from provisioning.models import (
    Deployment,
    DeploymentKind,
    DeploymentStatus,
    Environment,
    MaintenanceMode,
    Resource,
    ResourceState,
    Step,
    StepStatus,
)
from provisioning.models.steps import UNFINISHED_STEP_STATUSES
from provisioning.services import transitions
from provisioning.services.deployments.requests import Request
from provisioning.services.deployments.start import start, store_plan
from provisioning.services.locks import lock_environment
from provisioning.services.outputs import not_taken_back

logger = logging.getLogger(__name__)

RETRY = timedelta(minutes=10)
"""How long after a step on a resource failed or was cancelled the next one is tried."""


class BusyResourceError(ConductorError):
    """Say that somebody else's work on a resource has to end first."""


def take_back(*, resource: Resource, actor: str, reason: str) -> Deployment | None:
    """Ensure a resource again if anybody has left it who was given anything of its own.

    That is a maintenance deployment of one step, which starts at once; the answer is None if there
    is nothing to take back, or if it cannot start now. The caller holds the environment's lock.
    """
    if not _left_something().filter(pk=resource.pk).exists():
        return None
    request = Request(ensure=resource.key)
    deployment = Deployment(
        kind=DeploymentKind.MAINTENANCE,
        environment=resource.environment,
        resource=resource,
        ensures=True,
        reason=reason,
    )
    try:
        with transaction.atomic():
            plan, resources = request.plan_on_locked(None, resource.environment)
            store_plan(deployment, plan)
            transitions.begin([deployment], DeploymentStatus.WAITING, actor=actor, reason=reason)
            start(deployment, plan, resources, (), actor=actor)
            if deployment.status == DeploymentStatus.WAITING:
                raise BusyResourceError(deployment.status_reason)
    except ConductorError as error:
        logger.info("%s is not seen to yet: %s", resource.key, error)
        return None
    return deployment


def take_back_everywhere() -> None:
    """Do so for every resource on which nobody works, where maintenance is off; any may call it."""
    unfinished = Step.objects.filter(resource=OuterRef("pk"), status__in=UNFINISHED_STEP_STATUSES)
    stopped = Step.objects.filter(
        resource=OuterRef("pk"),
        status__in=[StepStatus.FAILED, StepStatus.CANCELLED],
        finished_at__gt=timezone.now() - RETRY,
    )
    closed = MaintenanceMode.objects.of(OuterRef("environment"))
    free = _left_something().filter(~Exists(unfinished), ~Exists(stopped), ~Exists(closed))
    for pk, environment in list(free.order_by("pk").values_list("pk", "environment")):
        with transaction.atomic():
            lock_environment(Environment.objects.get(pk=environment))
            # Somebody may have seen to it before the lock was got.
            resource = free.select_related("environment").filter(pk=pk).first()
            if resource is not None:
                reason = "Those who use it no more have still what they were given."
                take_back(resource=resource, actor=transitions.SYSTEM, reason=reason)


def _left_something() -> QuerySet[Resource]:
    """Select the resources whose former users have something of their own left."""
    left = not_taken_back().filter(resource=OuterRef("pk"))
    gone = [ResourceState.DELETING, ResourceState.DELETED]
    return Resource.objects.exclude(state__in=gone).filter(Exists(left))
