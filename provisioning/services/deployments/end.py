"""End deployments: give them their last status, and start what waited for them."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from provisioning.models import (
    ConsumerState,
    Deployment,
    DeploymentStatus,
    Environment,
    Resource,
    ResourceConsumer,
    ResourceState,
    Step,
    StepStatus,
)
from provisioning.models.deployments import STARTED_STATUSES, UNFINISHED_STEP_STATUSES
from provisioning.services import transitions
from provisioning.services.deployments.finish import (
    delete_resource,
    ever_applied,
    held_by,
    move_resource,
)
from provisioning.services.deployments.start import start_elsewhere, start_waiting, succeed
from provisioning.services.locks import lock_environment


def advance(deployment_id: int) -> None:
    """End a deployment whose steps have all ended, and start what waits and may start now."""
    deployment = Deployment.objects.select_related("environment").get(pk=deployment_id)
    done = (
        deployment.status in STARTED_STATUSES
        and not deployment.steps.filter(status__in=UNFINISHED_STEP_STATUSES).exists()
    )
    if done or _somebody_waits(deployment.environment):
        with transaction.atomic():
            lock_environment(deployment.environment)
            _end(deployment)
            start_waiting(deployment.environment)
    start_elsewhere(deployment)


def _somebody_waits(environment: Environment) -> bool:
    return Deployment.objects.filter(
        environment=environment, status=DeploymentStatus.WAITING
    ).exists()


def _end(deployment: Deployment) -> None:
    """Give a deployment whose steps have all ended its last status."""
    deployment = Deployment.objects.select_for_update(no_key=True).get(pk=deployment.pk)
    steps = list(deployment.steps.select_related("resource").order_by("position"))
    if deployment.status not in STARTED_STATUSES or any(
        step.status in UNFINISHED_STEP_STATUSES for step in steps
    ):
        return
    failed = [step for step in steps if step.status == StepStatus.FAILED]
    blocked = [step for step in steps if step.status == StepStatus.BLOCKED]
    if not failed and not blocked:
        succeed(deployment)
        return
    reasons = [f"{step.resource.key} failed: {step.error}" for step in failed]
    if blocked:
        reasons.append(f"Blocked by that: {', '.join(step.resource.key for step in blocked)}.")
    transitions.move(
        deployment,
        DeploymentStatus.FAILED,
        reason=", ".join(step.resource.key for step in failed) + " failed.",
        status_reason="\n".join(reasons),
        finished_at=timezone.now(),
    )
    _withdraw(deployment, blocked)


def _withdraw(deployment: Deployment, blocked: list[Step]) -> None:
    """Take back the deployment's wishes for resources that its steps never came to."""
    ids = [step.resource_id for step in blocked]
    locked = Resource.objects.select_for_update(no_key=True).filter(pk__in=ids).order_by("pk")
    resources = {resource.pk: resource for resource in locked}
    wanted_by_others = set(
        Step.objects.filter(resource__in=ids, status__in=UNFINISHED_STEP_STATUSES).values_list(
            "resource_id", flat=True
        )
    )
    # Dependents come after what they need, so the last are looked at first.
    for step in reversed(blocked):
        if step.resource_id in wanted_by_others:
            continue
        resource = resources[step.resource_id]
        reason = f"{step.blocked_by} failed before the work on it began."
        transitions.move_all(
            list(
                ResourceConsumer.objects.select_related("workload").filter(
                    resource=resource, deployment=deployment, state=ConsumerState.ACTIVE
                )
            ),
            ConsumerState.WITHDRAWN,
            reason=reason,
            ended_at=timezone.now(),
        )
        if not ever_applied(resource) and not held_by(resource):
            delete_resource(resource, step, reason)
        elif resource.state not in (ResourceState.ACTIVE, ResourceState.FAILED):
            move_resource(resource, ResourceState.FAILED, step, reason)
