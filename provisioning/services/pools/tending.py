"""Keep pools at their size and end overdue claims; any number of callers may, at any time."""

from __future__ import annotations

import logging
import uuid
from datetime import timedelta

from django.db import transaction
from django.db.models import (
    Case,
    DateTimeField,
    Exists,
    ExpressionWrapper,
    F,
    OuterRef,
    QuerySet,
    Value,
    When,
)
from django.db.models.functions import Now
from django.utils import timezone

from provisioning.exceptions import ConductorError
from provisioning.models import (
    AuditEvent,
    ConsumerState,
    DeletionPolicy,
    Deployment,
    DeploymentKind,
    DeploymentStatus,
    Environment,
    MaintenanceMode,
    Resource,
    ResourceConsumer,
    ResourceDependency,
    ResourcePool,
    ResourceState,
    Step,
    StepAction,
)
from provisioning.models.resources import OF_A_POOL
from provisioning.models.steps import UNFINISHED_STEP_STATUSES
from provisioning.services import transitions
from provisioning.services.deployments.priority import LOW
from provisioning.services.deployments.requests import Request
from provisioning.services.deployments.start import start, store_plan
from provisioning.services.locks import lock_environment

logger = logging.getLogger(__name__)

RETRY = timedelta(minutes=10)
"""How old a member is that could not be made before another takes its place."""


def fill_pools() -> None:
    """Bring every pool to its size: make what is missing, and give up what is too much or failed.

    Where maintenance is on, this is left for later.
    """
    closed = MaintenanceMode.objects.of(OuterRef("environment"))
    for pool in ResourcePool.objects.filter(~Exists(closed)).order_by("pk"):
        try:
            if _missing(pool) or _surplus(pool) or _failed(pool).exists():
                tend(pool)
        except ConductorError as error:  # the others are not to wait for it
            logger.warning("%s", error)


def tend(pool: ResourcePool) -> None:
    """Bring one pool to its size: members to be made get a maintenance deployment.

    What is given up is never claimed any more, and is destroyed as unused
    (`resources.destroy.destroy_unused`). Claimed members stay.
    """
    with transaction.atomic():
        lock_environment(pool.environment)
        pool = ResourcePool.objects.select_related("environment", "owner_team").get(pk=pool.pk)
        _give_up(_failed(pool), "It could not be made.")
        if surplus := _surplus(pool):
            _give_up(_expendable(pool)[:surplus], f"The pool {pool.name} was made smaller.")
        if missing := _missing(pool):
            _make(pool, missing)


def expire_claims() -> None:
    """End the claims whose time is over; the members are then destroyed as unused."""
    overdue = _overdue().order_by("pk").values_list("pk", "environment")
    for pk, environment in list(overdue):
        with transaction.atomic():
            lock_environment(Environment.objects.get(pk=environment))
            rows = Resource.objects.select_for_update(no_key=True, of=("self",))
            member = rows.select_related("pool").filter(pk=pk).first()
            if member is not None and _overdue().filter(pk=pk).exists():
                _end_claim(member)


def live_members(pool: ResourcePool) -> QuerySet[Resource]:
    """Select a pool's members, the claimed and the given up included until they are gone."""
    return Resource.objects.filter(pool=pool).exclude(state=ResourceState.DELETED)


def unclaimed_members(pool: ResourcePool) -> QuerySet[Resource]:
    """Select a pool's members that nobody has claimed and that are not being destroyed."""
    return live_members(pool).filter(claimed_at=None).exclude(state=ResourceState.DELETING)


def _missing(pool: ResourcePool) -> int:
    """Count the members to be made now."""
    making = Step.objects.filter(
        resource__in=unclaimed_members(pool),
        action=StepAction.ENSURE,
        status__in=UNFINISHED_STEP_STATUSES,
    )
    room = pool.max_size - live_members(pool).count()
    wanted = pool.size - unclaimed_members(pool).count()
    return max(0, min(wanted, room, pool.max_concurrent - making.count()))


def _surplus(pool: ResourcePool) -> int:
    """Count the unclaimed members that can be given up because there are too many."""
    surplus = unclaimed_members(pool).count() - pool.size
    return max(0, min(surplus, _expendable(pool).count()))


def _expendable(pool: ResourcePool) -> QuerySet[Resource]:
    """Select the unclaimed members that nothing else keeps: unfinished ones first, then newest."""
    finished = Case(When(state=ResourceState.ACTIVE, then=Value(1)), default=Value(0))
    return (
        unclaimed_members(pool)
        .filter(protected=False, adopted=False, deletion_policy=DeletionPolicy.DELETE)
        .order_by(finished, "-created_at", "key")
    )


def _failed(pool: ResourcePool) -> QuerySet[Resource]:
    """Select the members that could not be made, and that nobody is at work on any more."""
    unfinished = Step.objects.filter(resource=OuterRef("pk"), status__in=UNFINISHED_STEP_STATUSES)
    return (
        _expendable(pool)
        .exclude(state=ResourceState.ACTIVE)
        .filter(~Exists(unfinished), created_at__lt=timezone.now() - RETRY)
    )


def _give_up(members: QuerySet[Resource], reason: str) -> None:
    """Take members out of their pool; one that somebody else has locked stays until the next time."""
    rows = members.select_for_update(skip_locked=True, no_key=True, of=("self",))
    for member in rows:
        member.claimed_at = timezone.now()
        member.save(update_fields=["claimed_at", "updated_at"])
        _note(member, "resource.given_up", reason)


def _make(pool: ResourcePool, count: int) -> None:
    """Store and start the maintenance deployment that makes so many members."""
    keys = [f"{OF_A_POOL}{pool.name}/{uuid.uuid4().hex[:12]}" for _ in range(count)]
    reason = f"{count} more for the pool {pool.name}, which keeps {pool.size} ready."
    deployment = Deployment(
        kind=DeploymentKind.MAINTENANCE,
        environment=pool.environment,
        pool=pool,
        reason=reason,
        priority=LOW,
    )
    request = Request(fill=pool.name, members=keys)
    plan, resources = request.plan_on_locked(None, pool.environment)
    store_plan(deployment, plan)
    transitions.begin(
        [deployment], DeploymentStatus.WAITING, actor=transitions.SYSTEM, reason=reason
    )
    start(deployment, plan, resources, ())


def _overdue() -> QuerySet[Resource]:
    lasts = ExpressionWrapper(
        F("claimed_at") + F("pool__claim_seconds") * Value(timedelta(seconds=1)),
        output_field=DateTimeField(),
    )
    claims = ResourceConsumer.objects.filter(resource=OuterRef("pk"), state=ConsumerState.ACTIVE)
    return (
        Resource.objects.exclude(state=ResourceState.DELETED)
        .filter(Exists(claims), pool__claim_seconds__isnull=False)
        .alias(claimed_until=lasts)
        .filter(claimed_until__lt=Now())
    )


def _end_claim(member: Resource) -> None:
    assert member.pool is not None  # noqa: S101 - only claims of pools are overdue
    reason = f"A claim of the pool {member.pool.name} lasts {member.pool.claim_seconds} s."
    consumers = ResourceConsumer.objects.select_for_update(no_key=True, of=("self",))
    claims = consumers.filter(resource=member, state=ConsumerState.ACTIVE).order_by("pk")
    transitions.move_all(
        list(claims.select_related("workload")),
        ConsumerState.REVOKED,
        reason=reason,
        ended_at=timezone.now(),
    )
    ResourceDependency.objects.filter(target=member).delete()
    _note(member, "resource.claim_expired", reason)


def _note(member: Resource, action: str, reason: str) -> None:
    AuditEvent.objects.create(
        actor=transitions.SYSTEM,
        action=action,
        subject_type="resource",
        subject_id=str(member.pk),
        subject=member.key,
        reason=reason,
    )
