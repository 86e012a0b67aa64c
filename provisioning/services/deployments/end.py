"""End deployments: give them their last status, and start what waited for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from django.db import transaction
from django.db.models import Q
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
from provisioning.models.deployments import STARTED_STATUSES
from provisioning.models.steps import UNFINISHED_STEP_STATUSES
from provisioning.services import transitions
from provisioning.services.deployments.finish import (
    AT_WORK,
    cancel_pending,
    delete_resource,
    ever_applied,
    held_by,
    move_resource,
    state_as_applied,
)
from provisioning.services.deployments.rollback import roll_back
from provisioning.services.deployments.start import start_elsewhere, start_waiting, succeed
from provisioning.services.locks import lock_environment

_LARGE = ("score", "plan")
"""The fields of a deployment that its end does without."""


def advance(deployment_id: int) -> None:
    """End a deployment whose steps have all ended, and start what waits and may start now."""
    rows = Deployment.objects.select_related("environment").defer(*_LARGE)
    deployment = rows.get(pk=deployment_id)
    if _is_done(deployment) or _somebody_waits(deployment.environment):
        with transaction.atomic():
            lock_environment(deployment.environment)
            _end(deployment)
            start_waiting(deployment.environment)
    start_elsewhere(deployment)


def _is_done(deployment: Deployment) -> bool:
    """Tell whether nothing happens any more; the pending steps of a cancelled one never begin."""
    if deployment.status not in STARTED_STATUSES:
        return False
    cancelling = deployment.status == DeploymentStatus.CANCELLING
    goes_on = AT_WORK if cancelling else Q(status__in=UNFINISHED_STEP_STATUSES)
    return not deployment.steps.filter(goes_on).exists()


def _somebody_waits(environment: Environment) -> bool:
    return Deployment.objects.filter(
        environment=environment, status=DeploymentStatus.WAITING
    ).exists()


def _end(deployment: Deployment) -> None:
    """Give a deployment whose steps have all ended its last status."""
    rows = Deployment.objects.select_for_update(no_key=True, of=("self",))
    rows = rows.select_related("environment", "application").defer(*_LARGE)
    deployment = rows.get(pk=deployment.pk)
    if deployment.status == DeploymentStatus.CANCELLING:
        # A step that had lost its worker may have been given free while the cancel was decided.
        cancel_pending(deployment, reason=deployment.status_reason)
    rest = deployment.steps.exclude(status=StepStatus.SUCCEEDED).order_by("position")
    steps = list(rest.select_related("resource"))
    if deployment.status not in STARTED_STATUSES or any(
        step.status in UNFINISHED_STEP_STATUSES for step in steps
    ):
        return
    if not steps:
        succeed(deployment)
        return
    failed = ", ".join(step.resource.key for step in steps if step.status == StepStatus.FAILED)
    transitions.move(
        deployment,
        deployment.ends_as or DeploymentStatus.FAILED,
        reason=deployment.status_reason or f"{failed} failed.",
        status_reason="\n".join(_reasons(deployment, steps)),
        finished_at=timezone.now(),
    )
    _withdraw(deployment, [step for step in steps if _never_began(step)])
    if deployment.rollback:
        deployment.status_reason += f"\n{roll_back(deployment)}"
        deployment.save(update_fields=["status_reason"])


def _reasons(deployment: Deployment, steps: Sequence[Step]) -> Iterator[str]:
    if deployment.status_reason:
        yield deployment.status_reason
    for step in steps:
        if step.status == StepStatus.FAILED:
            yield f"{step.resource.key} failed: {step.error}"
    blocked = [step for step in steps if step.status == StepStatus.BLOCKED]
    cancelled = [step for step in steps if step.status == StepStatus.CANCELLED]
    for what, listed in {
        "Blocked by that": blocked,
        "Stopped": [step for step in cancelled if step.driver_ran],
        "Not begun": [step for step in cancelled if not step.driver_ran],
    }.items():
        if listed:
            yield f"{what}: {', '.join(step.resource.key for step in listed)}."


def _never_began(step: Step) -> bool:
    cancelled = step.status == StepStatus.CANCELLED and not step.driver_ran
    return cancelled or step.status == StepStatus.BLOCKED


def _withdraw(deployment: Deployment, never_began: Sequence[Step]) -> None:
    """Take back the deployment's wishes for resources that its steps never came to."""
    ids = [step.resource_id for step in never_began]
    locked = Resource.objects.select_for_update(no_key=True).filter(pk__in=ids).order_by("pk")
    resources = {resource.pk: resource for resource in locked}
    wanted_by_others = set(
        Step.objects.filter(resource__in=ids, status__in=UNFINISHED_STEP_STATUSES).values_list(
            "resource_id", flat=True
        )
    )
    # Dependents come after what they need, so the last are looked at first.
    for step in reversed(never_began):
        if step.resource_id in wanted_by_others:
            continue
        resource = resources[step.resource_id]
        cause = f"{step.blocked_by} failed" if step.blocked_by else "The deployment was stopped"
        reason = f"{cause} before the work on it began."
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
            move_resource(resource, state_as_applied(resource), step, reason)
