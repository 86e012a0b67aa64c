"""Destroy one resource at its owner's request, or when nobody has joined during its grace."""

from __future__ import annotations

import logging
import time
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Exists, OuterRef

from provisioning.exceptions import ConductorError
from provisioning.models import (
    Deployment,
    DeploymentKind,
    DeploymentStatus,
    Environment,
    MaintenanceMode,
    Resource,
    ResourceState,
)
from provisioning.planning.maintenance import HeldResourceError, short_name
from provisioning.planning.plan import Plan
from provisioning.services import transitions
from provisioning.services.audit import record
from provisioning.services.deployments.priority import LOW, NORMAL
from provisioning.services.deployments.requests import Request
from provisioning.services.deployments.start import start, store_plan
from provisioning.services.locks import lock_environment
from provisioning.services.resources.find import require_owner
from provisioning.services.resources.grace import begin_missing_grace, expired_resources

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 5.0


class MissingReasonError(ConductorError):
    """Refuse to use force without a reason."""


def plan_destroy(*, resource: Resource, force: bool = False) -> Plan:
    """Tell what destroying a resource would do; write nothing; raise HeldResourceError."""
    resource = _as_it_is(resource)
    return Request(destroy=resource.key, forced=force).plan(None, resource.environment)


def destroy_resource(
    *, resource: Resource, actor: User, force: bool = False, reason: str = ""
) -> Deployment:
    """Store a maintenance deployment that destroys a resource, and start it if nothing is in its way.

    What then holds nothing else goes with it. Raises HeldResourceError if it is held, unless
    `force`, which needs a `reason`: then its consumers become `broken`, and its dependents are
    brought about again by their next deployment. Raises NotAllowedError for others than its owners.
    """
    require_reason(force, reason)
    with transaction.atomic():
        lock_environment(resource.environment)
        resource = _as_it_is(resource)
        require_owner(actor, resource, "destroy")
        deployment = _submit(resource, actor.get_username(), force, reason.strip(), actor)
        record(
            actor=actor,
            action="resource.destroy_forced" if force else "resource.destroy_asked",
            subject_type="resource",
            subject_id=resource.pk,
            subject=resource.key,
            reason=reason.strip(),
            deployment_id=deployment.pk,
        )
    return deployment


def destroy_unused() -> None:
    """Destroy the unused resources whose grace is over; any number of callers may.

    After SWEEP_SECONDS, and where maintenance is on, the rest is left to a later call.
    """
    end = time.monotonic() + SWEEP_SECONDS
    begin_missing_grace()
    closed = MaintenanceMode.objects.of(OuterRef("environment"))
    expired = expired_resources().filter(~Exists(closed)).order_by("grace_until", "pk")
    for pk, environment in list(expired.values_list("pk", "environment")):
        if time.monotonic() > end:
            return
        try:
            _destroy_expired(pk, environment)
        except ConductorError as error:  # the others are not to wait for it
            logger.warning("%s", error)


def _destroy_expired(pk: UUID, environment: int) -> None:
    with transaction.atomic():
        lock_environment(Environment.objects.get(pk=environment))
        # Somebody may have joined, or asked for its destruction, before the lock was got.
        resource = expired_resources().select_related("environment").filter(pk=pk).first()
        if resource is not None:
            reason = (
                "Its grace period ended, and nobody had joined."
                if resource.is_shareable
                else "Nothing holds it any more."
            )
            _submit(resource, transitions.SYSTEM, False, reason, None)


def require_reason(force: bool, reason: str) -> None:
    """Raise MissingReasonError for force without a reason."""
    if force and not reason.strip():
        raise MissingReasonError("Using force breaks what others run: say why with --reason TEXT.")


def _as_it_is(resource: Resource) -> Resource:
    """Read a resource again: by now it may be somebody else's, or gone and another have its key."""
    rows = Resource.objects.select_related("environment", "owner_team")
    now = rows.get(pk=resource.pk)
    if now.state == ResourceState.DELETED:
        raise HeldResourceError(f"Cannot destroy {short_name(now.key)}: it is gone already.")
    return now


def _submit(
    resource: Resource, actor: str, force: bool, reason: str, requester: User | None
) -> Deployment:
    request = Request(destroy=resource.key, forced=force)
    deployment = Deployment(
        kind=DeploymentKind.MAINTENANCE,
        environment=resource.environment,
        resource=resource,
        forced=force,
        reason=reason,
        requested_by=requester,
        priority=LOW if requester is None else NORMAL,
    )
    plan, resources = request.plan_on_locked(None, resource.environment)
    store_plan(deployment, plan)
    transitions.begin([deployment], DeploymentStatus.WAITING, actor=actor, reason=reason)
    start(deployment, plan, resources, (), actor=actor)
    return deployment
