"""End steps: what a step brought about, and what it blocks.

A worker that lost its step to another is refused here with LeaseLostError, and writes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from provisioning.drivers.base import LeaseLostError, StateLocation
from provisioning.models import (
    ConsumerState,
    DeletionPolicy,
    Deployment,
    Resource,
    ResourceDependency,
    ResourceState,
    StateVersion,
    Step,
    StepStatus,
)
from provisioning.models.resources import LIVE_RESOURCE_STATES
from provisioning.models.steps import BUSY_STEP_STATUSES
from provisioning.queue import doorbell
from provisioning.queue.schedules import REGULAR, TEND_POOLS
from provisioning.services import transitions
from provisioning.services.deployments.suitability import UnsuitableError, unsuitable_needs
from provisioning.services.deployments.wishes import floor_of, note_unmet, tell_unmet
from provisioning.services.logs.noting import note
from provisioning.services.outputs import forget_outputs, store_outputs
from provisioning.services.state.events import settle_lost

_STATE_FIELDS = ("state_backend", "state_location", "state_metadata")
_UNDER_WAY = (ResourceState.PROVISIONING, ResourceState.UPDATING, ResourceState.DELETING)
_APPLIED_FIELDS = ("applied_mac", "applied_spec_digest", "floor", "imports")


def begin_ensure(step: Step, state: StateLocation | None = None) -> None:
    """Note that the driver is about to run: from now on the resource may be anything between.

    `state` is where its state is kept from now on, if that was not settled before. Raises
    LeaseLostError.
    """
    with transaction.atomic():
        resource = _locked(step)
        if state is not None and not resource.state_backend:
            _settle_state(resource, state)
            resource.save(update_fields=[*_STATE_FIELDS, "updated_at"])
        changing = ResourceState.UPDATING if resource.applied_mac else ResourceState.PROVISIONING
        if resource.state == ResourceState.ACTIVE:
            changing = ResourceState.UPDATING
        if resource.state == ResourceState.FAILED and resource.applied_spec_digest:
            changing = ResourceState.UPDATING
        if resource.state in (ResourceState.ACTIVE, ResourceState.FAILED):
            move_resource(resource, changing, step)
        _note_driver_run(step, resource)


def check_needs(step: Step, resource: Resource) -> None:
    """Look whether what a resource requires suits it, as it now is.

    Otherwise its consumers are told, and UnsuitableError is raised. Raises LeaseLostError.
    """
    found = unsuitable_needs(resource)
    if not found:
        return
    with transaction.atomic():
        _locked(step)
        for consumer, sentence in found:
            note_unmet(consumer, sentence, step.deployment_id)
    raise UnsuitableError("\n".join(dict.fromkeys(sentence for _, sentence in found)))


def begin_destroy(step: Step) -> bool:
    """Look at the holds again, unless it is forced, and note that the driver is about to run.

    Returns whether it is to run; if not, the step has ended and its log says why: the resource is
    held, or there was never anything to destroy. Raises LeaseLostError.
    """
    with transaction.atomic():
        resource = _locked(step)
        forced = step.deployment.forced and step.deployment.resource_id == resource.pk
        reason = "" if forced else held_by(resource)
        if reason:
            reason = f"Not destroyed: {reason}."
            move_resource(resource, state_as_applied(resource), step, reason)
            note(step, reason)
            _succeed(step, reason)
            return False
        if not ever_applied(resource):
            reason = "Nothing to destroy: it was never brought about."
            delete_resource(resource, step, reason)
            note(step, reason)
            _succeed(step, reason)
            return False
        _note_driver_run(step, resource)
        return True


def finish_unchanged(step: Step, spec_digest: str) -> None:
    """End an ensure that had nothing to do, because its input is what was last applied."""
    with transaction.atomic():
        resource = _locked(step)
        resource.applied_spec_digest = spec_digest
        resource.save(update_fields=["applied_spec_digest", "updated_at"])
        if resource.state == ResourceState.UPDATING:
            move_resource(resource, ResourceState.ACTIVE, step)
        tell_unmet(resource, step.deployment, changed=False)
        _succeed(step)


def finish_ensure(
    step: Step,
    *,
    outputs: Mapping[str, Any],
    sensitive: Collection[str],
    by_consumer: Mapping[str, Mapping[str, Any]],
    mac: str,
    state: StateLocation | None,
) -> None:
    """End an ensure whose driver has done its work; raise LeaseLostError.

    `outputs`, and what `by_consumer` gives to each alone, replace the stored ones, those in
    `sensitive` encrypted; `mac` is of the applied input.
    """
    with transaction.atomic():
        resource = _locked(step)
        store_outputs(resource, outputs, sensitive, by_consumer)
        resource.applied_mac = mac
        resource.applied_spec_digest = resource.spec_digest
        if state is not None:
            _settle_state(resource, state)
        resource.floor = floor_of(resource)
        taken_in = f"It took in {', '.join(sorted(resource.imports))}." if resource.imports else ""
        resource.imports = {}
        resource.save(update_fields=[*_APPLIED_FIELDS, *_STATE_FIELDS, "updated_at"])
        move_resource(resource, ResourceState.ACTIVE, step, taken_in)
        tell_unmet(resource, step.deployment, changed=True)
        _succeed(step)
        if resource.pool_id is not None:
            doorbell.ring(REGULAR, task=TEND_POOLS)


def finish_destroy(step: Step) -> None:
    """End a destroy whose driver has done its work; raise LeaseLostError."""
    with transaction.atomic():
        resource = _locked(step)
        delete_resource(resource, step)
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
        move_resource(resource, ResourceState.FAILED, step, error)
        _block_dependents(step, resource)


def cancel_step(step: Step, reason: str) -> None:
    """End a step whose tool has stopped because its deployment is cancelled; raise LeaseLostError.

    What its driver has begun is unfinished. `reason` is a sentence without any secret.
    """
    with transaction.atomic():
        resource = _locked(step)
        transitions.move(step, StepStatus.CANCELLED, reason=reason, finished_at=timezone.now())
        if Step.objects.filter(pk=step.pk, driver_ran=True).exists():
            move_resource(resource, ResourceState.FAILED, step, reason)


AT_WORK = Q(status__in=BUSY_STEP_STATUSES) | Q(
    status=StepStatus.PENDING, losses__gt=0, lease_until__gt=Now()
)
"""Match steps for which a tool may run: a lost worker's may go on while its next attempt is due."""


def cancel_pending(deployment: Deployment, *, reason: str, actor: str = transitions.SYSTEM) -> None:
    """End the steps of a locked deployment for which nothing runs; one claimed just now is left.

    What the driver of a lost one has begun is unfinished.
    """
    pending = Step.objects.filter(~AT_WORK, deployment=deployment, status=StepStatus.PENDING)
    begun = pending.filter(driver_ran=True).values("resource_id")
    rows = Resource.objects.select_for_update(no_key=True).filter(pk__in=begun).order_by("pk")
    resources = {resource.pk: resource for resource in rows}
    locked = pending.select_for_update(no_key=True, of=("self",)).select_related("resource")
    steps = list(locked.order_by("pk"))
    transitions.move_all(
        steps, StepStatus.CANCELLED, actor=actor, reason=reason, finished_at=timezone.now()
    )
    for step in steps:
        if step.driver_ran:
            _leave_unfinished(step, resources[step.resource_id], reason)


def _leave_unfinished(step: Step, resource: Resource, reason: str) -> None:
    """Note what a lost step left of a locked resource, unless another one is or was at work on it since."""
    others = Step.objects.filter(resource=resource, status__in=BUSY_STEP_STATUSES)
    if resource.state not in _UNDER_WAY or others.exists():
        return
    move_resource(resource, ResourceState.FAILED, step, reason)
    settle_lost(step)


def held_by(resource: Resource) -> str:
    """Say what holds a resource, or return ""."""
    if resource.protected:
        return "it is protected"
    if resource.deletion_policy == DeletionPolicy.RETAIN:
        return "its deletion policy is retain"
    if resource.adopted:
        return "it was adopted"
    if resource.grace_until and resource.grace_until > timezone.now():
        return "its grace period is not over"
    if resource.pool_id is not None and resource.claimed_at is None:
        return "it is an unclaimed member of its pool"
    consumer = (
        resource.consumers.filter(state=ConsumerState.ACTIVE)
        .select_related("workload__application")
        .order_by("pk")
        .first()
    )
    if consumer:
        return f"workload {consumer.workload.name} of {consumer.application_name} uses it"
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


def state_as_applied(resource: Resource) -> ResourceState:
    """Return the state of a resource that nothing was done to, by what was last applied."""
    as_desired = resource.applied_mac and resource.applied_spec_digest == resource.spec_digest
    return ResourceState.ACTIVE if as_desired else ResourceState.FAILED


def move_resource(resource: Resource, state: str, step: Step, reason: str = "") -> None:
    """Move a locked resource to a state for a step's sake, unless it is there already."""
    if resource.state != state:
        transitions.move(resource, state, reason=reason, deployment=step.deployment)


def delete_resource(resource: Resource, step: Step, reason: str = "") -> None:
    """Note that a locked resource is gone, and with it its outputs and what it needed."""
    forget_outputs(resource)
    ResourceDependency.objects.filter(source=resource).delete()
    transitions.move(
        resource,
        ResourceState.DELETED,
        reason=reason,
        deployment=step.deployment,
        deleted_at=timezone.now(),
        applied_mac="",
    )


def _locked(step: Step) -> Resource:
    """Lock a running step's resource and the step; raise LeaseLostError if it is not ours any more."""
    resource = Resource.objects.select_for_update(no_key=True).get(pk=step.resource_id)
    held = Step.objects.select_for_update(no_key=True).filter(
        pk=step.pk, attempt=step.attempt, status=step.status
    )
    if step.status not in (StepStatus.RUNNING, StepStatus.RECOVERING) or not held.values_list("pk"):
        raise LeaseLostError(
            f"Step {step.pk} is not attempt {step.attempt}'s any more: another worker has taken it."
        )
    # Nobody changes that while a step is unfinished, and a claim has read it.
    resource.template_version = step.resource.template_version
    return resource


def _settle_state(resource: Resource, state: StateLocation) -> None:
    resource.state_backend = state.backend
    resource.state_location = state.location
    resource.state_metadata = dict(state.metadata)


def _note_driver_run(step: Step, resource: Resource) -> None:
    resource.applied_mac = ""
    resource.save(update_fields=["applied_mac", "updated_at"])
    step.driver_ran = True
    step.save(update_fields=["driver_ran"])


def _succeed(step: Step, reason: str = "") -> None:
    """End a step, and wake the workers of other queues for what waits for it there."""
    transitions.move(step, StepStatus.SUCCEEDED, reason=reason, finished_at=timezone.now())
    waiting = step.needed_by.filter(status=StepStatus.PENDING).exclude(queue=step.queue)
    for queue in waiting.values_list("queue", flat=True).distinct().order_by("queue"):
        doorbell.ring(queue)


def _block_dependents(step: Step, resource: Resource) -> None:
    """Mark every step that needs the failed one, directly or through others."""
    needing: dict[int, list[int]] = defaultdict(list)
    for one, needed in Step.needs.through.objects.filter(
        from_step__deployment_id=step.deployment_id
    ).values_list("from_step_id", "to_step_id"):
        needing[needed].append(one)
    reached: set[int] = set()
    waiting = [step.pk]
    while waiting:
        found = set(needing[waiting.pop()]) - reached
        reached |= found
        waiting += found
    # No worker has them, but another failure may block the same ones: all are locked by id at once.
    blocked = (
        Step.objects.select_for_update(no_key=True, of=("self",))
        .select_related("resource")
        .filter(pk__in=reached, status=StepStatus.PENDING)
        .order_by("pk")
    )
    transitions.move_all(
        list(blocked),
        StepStatus.BLOCKED,
        reason=f"{resource.key} failed.",
        blocked_by=resource.key,
        finished_at=timezone.now(),
    )
