"""End steps and deployments: what a step brought about, what it blocks, what starts next.

A worker that lost its step to another is refused here with LeaseLostError, and writes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from django.db import transaction
from django.utils import timezone

from provisioning.drivers.base import LeaseLostError, StateLocation
from provisioning.encryption import canonical_json, encrypt
from provisioning.models import (
    ConsumerState,
    DeletionPolicy,
    Deployment,
    DeploymentStatus,
    Environment,
    Resource,
    ResourceConsumer,
    ResourceDependency,
    ResourceOutput,
    ResourceState,
    StateVersion,
    Step,
    StepStatus,
)
from provisioning.models.deployments import STARTED_STATUSES, UNFINISHED_STEP_STATUSES
from provisioning.models.resources import LIVE_RESOURCE_STATES
from provisioning.services import transitions
from provisioning.services.deployments.start import start_waiting, succeed
from provisioning.services.locks import lock_environment


def begin_ensure(step: Step) -> None:
    """Note that the driver is about to run: from now on the resource may be anything between.

    Raises LeaseLostError.
    """
    with transaction.atomic():
        resource = _locked(step)
        changing = ResourceState.UPDATING if resource.applied_mac else ResourceState.PROVISIONING
        if resource.state == ResourceState.FAILED and resource.applied_spec_digest:
            changing = ResourceState.UPDATING
        if resource.state in (ResourceState.ACTIVE, ResourceState.FAILED):
            _move_resource(resource, changing, step)
        _note_driver_run(step, resource)


def begin_destroy(step: Step) -> str:
    """Look at the holds again, and note that the driver is about to run.

    Returns "" if it is to run; otherwise the step has ended and the answer says why: the resource
    is held, or there was never anything to destroy. Raises LeaseLostError.
    """
    with transaction.atomic():
        resource = _locked(step)
        reason = held_by(resource)
        if reason:
            reason = f"Not destroyed: {reason}."
            as_desired = (
                resource.applied_mac and resource.applied_spec_digest == resource.spec_digest
            )
            back = ResourceState.ACTIVE if as_desired else ResourceState.FAILED
            _move_resource(resource, back, step, reason)
            _succeed(step, reason)
        elif not ever_applied(resource):
            reason = "Nothing to destroy: it was never brought about."
            _delete(resource, step, reason)
            _succeed(step, reason)
        else:
            _note_driver_run(step, resource)
        return reason


def finish_unchanged(step: Step, spec_digest: str) -> None:
    """End an ensure that had nothing to do, because its input is what was last applied."""
    with transaction.atomic():
        resource = _locked(step)
        resource.applied_spec_digest = spec_digest
        resource.save(update_fields=["applied_spec_digest", "updated_at"])
        if resource.state == ResourceState.UPDATING:
            _move_resource(resource, ResourceState.ACTIVE, step)
        _succeed(step)


def finish_ensure(
    step: Step,
    *,
    outputs: Mapping[str, Any],
    sensitive: Collection[str],
    mac: str,
    state: StateLocation | None,
) -> None:
    """End an ensure whose driver has done its work; raise LeaseLostError.

    `outputs` replace the stored ones, those in `sensitive` encrypted; `mac` is of the applied input.
    """
    with transaction.atomic():
        resource = _locked(step)
        _store_outputs(resource, outputs, sensitive)
        resource.applied_mac = mac
        resource.applied_spec_digest = resource.spec_digest
        if state is not None:
            resource.state_backend = state.backend
            resource.state_location = state.location
            resource.state_metadata = dict(state.metadata)
        resource.save()
        _move_resource(resource, ResourceState.ACTIVE, step)
        _succeed(step)


def finish_destroy(step: Step) -> None:
    """End a destroy whose driver has done its work; raise LeaseLostError."""
    with transaction.atomic():
        resource = _locked(step)
        _delete(resource, step)
        _succeed(step)


def fail_step(step: Step, error: str) -> None:
    """End a step that failed, and block what needs it; raise LeaseLostError.

    `error` is a sentence for a person without any secret.
    """
    with transaction.atomic():
        resource = _locked(step)
        transitions.move(
            step, StepStatus.FAILED, reason=error, error=error, finished_at=timezone.now()
        )
        _move_resource(resource, ResourceState.FAILED, step, error)
        _block_dependents(step, resource)


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


def held_by(resource: Resource) -> str:
    """Say what holds a resource, or return ""."""
    if resource.protected:
        return "it is protected"
    if resource.deletion_policy == DeletionPolicy.RETAIN:
        return "its template retains it"
    consumer = (
        resource.consumers.filter(state=ConsumerState.ACTIVE)
        .select_related("workload__application")
        .order_by("pk")
        .first()
    )
    if consumer:
        workload = consumer.workload
        return f"workload {workload.name} of {workload.application.name} uses it"
    dependents = resource.dependents.filter(source__state__in=LIVE_RESOURCE_STATES)
    needing = dependents.order_by("source__key").values_list("source__key", flat=True).first()
    return f"{needing} needs it" if needing else ""


def ever_applied(resource: Resource) -> bool:
    """Tell whether a driver may have made anything for a resource."""
    return (
        bool(resource.applied_mac or resource.applied_spec_digest)
        or Step.objects.filter(resource=resource, driver_ran=True).exists()
        or StateVersion.objects.filter(resource=resource).exists()
    )


def _locked(step: Step) -> Resource:
    """Lock a running step's resource and the step; raise LeaseLostError if it is not ours any more."""
    resource = Resource.objects.select_for_update(no_key=True).get(pk=step.resource_id)
    held = Step.objects.select_for_update(no_key=True).filter(
        pk=step.pk, attempt=step.attempt, status=step.status
    )
    if step.status not in (StepStatus.RUNNING, StepStatus.RECOVERING) or not held:
        raise LeaseLostError(
            f"Step {step.pk} is not attempt {step.attempt}'s any more: another worker has taken it."
        )
    return resource


def _note_driver_run(step: Step, resource: Resource) -> None:
    resource.applied_mac = ""
    resource.save(update_fields=["applied_mac", "updated_at"])
    step.driver_ran = True
    step.save(update_fields=["driver_ran"])


def _succeed(step: Step, reason: str = "") -> None:
    transitions.move(step, StepStatus.SUCCEEDED, reason=reason, finished_at=timezone.now())


def _move_resource(resource: Resource, state: str, step: Step, reason: str = "") -> None:
    if resource.state != state:
        transitions.move(resource, state, reason=reason, deployment=step.deployment)


def _delete(resource: Resource, step: Step, reason: str = "") -> None:
    resource.outputs.all().delete()
    ResourceDependency.objects.filter(source=resource).delete()
    transitions.move(
        resource,
        ResourceState.DELETED,
        reason=reason,
        deployment=step.deployment,
        deleted_at=timezone.now(),
        applied_mac="",
    )


def _store_outputs(
    resource: Resource, outputs: Mapping[str, Any], sensitive: Collection[str]
) -> None:
    resource.outputs.exclude(key__in=outputs).delete()
    ResourceOutput.objects.bulk_create(
        [
            ResourceOutput(
                resource=resource,
                key=key,
                sensitive=True,
                ciphertext=encrypt(canonical_json(value)),
            )
            if key in sensitive
            else ResourceOutput(resource=resource, key=key, value=value)
            for key, value in outputs.items()
        ],
        update_conflicts=True,
        unique_fields=["resource", "key"],
        update_fields=["sensitive", "value", "ciphertext"],
    )


def _block_dependents(step: Step, resource: Resource) -> None:
    """Mark every step that needs the failed one, directly or through others."""
    blocked: dict[int, Step] = {}
    waiting = {step.pk}
    while waiting:
        # They are pending, so no worker has them: only another failure may lock them, by id too.
        found = (
            Step.objects.select_for_update(no_key=True, of=("self",))
            .select_related("resource")
            .filter(deployment_id=step.deployment_id, needs__in=waiting, status=StepStatus.PENDING)
            .order_by("pk")
        )
        waiting = {each.pk for each in found} - set(blocked)
        blocked |= {each.pk: each for each in found}
    transitions.move_all(
        [blocked[pk] for pk in sorted(blocked)],
        StepStatus.BLOCKED,
        reason=f"{resource.key} failed.",
        blocked_by=resource.key,
        finished_at=timezone.now(),
    )


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
            _delete(resource, step, reason)
        elif resource.state not in (ResourceState.ACTIVE, ResourceState.FAILED):
            _move_resource(resource, ResourceState.FAILED, step, reason)
