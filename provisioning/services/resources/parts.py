"""The parts of a resource: what its template needs besides it, and nobody names by itself."""

from __future__ import annotations

from django.db.models import QuerySet
from django.utils import timezone

from provisioning.models import (
    Approval,
    ApprovalStatus,
    ConsumerState,
    Resource,
    ResourceConsumer,
    ResourceDependency,
    Team,
)
from provisioning.models.resources import LIVE_RESOURCE_STATES
from provisioning.planning.naming import parts_prefix
from provisioning.services import transitions


def parts_of(resource: Resource) -> QuerySet[Resource]:
    """Select the live parts of a resource that several applications may use."""
    return Resource.objects.filter(
        environment=resource.environment_id,
        key__startswith=parts_prefix(resource.key),
        state__in=LIVE_RESOURCE_STATES,
    ).order_by("key")


def hand_parts_over(resource: Resource, team: Team) -> None:
    """Let the parts of a resource belong to a team; what is asked about them is asked of it."""
    parts = parts_of(resource).exclude(owner_team=team)
    ids = list(parts.values_list("pk", flat=True))
    Resource.objects.filter(pk__in=ids).update(owner_team=team, updated_at=timezone.now())
    pending = Approval.objects.filter(resource__in=ids, status=ApprovalStatus.PENDING)
    pending.update(team=team)


def uses_of_parts(consumer: ResourceConsumer) -> QuerySet[ResourceConsumer]:
    """Select the uses of a resource's parts that come with one use of the whole."""
    return (
        ResourceConsumer.objects.filter(
            workload=consumer.workload_id,
            alias__startswith=f"{consumer.alias}/",
            resource__in=parts_of(consumer.resource),
            state=ConsumerState.ACTIVE,
        )
        .select_related("resource", "workload__application")
        .order_by("alias")
    )


def revoke_parts(consumer: ResourceConsumer, *, actor: str, reason: str) -> None:
    """Put a consumer out of the parts of what it was put out of."""
    uses = list(uses_of_parts(consumer).select_for_update(no_key=True, of=("self",)))
    transitions.move_all(
        uses, ConsumerState.REVOKED, actor=actor, reason=reason, ended_at=timezone.now()
    )
    workload = consumer.workload
    still_used = ResourceConsumer.objects.filter(
        workload__application=workload.application_id,
        workload__environment=workload.environment_id,
        state=ConsumerState.ACTIVE,
    )
    ResourceDependency.objects.filter(
        target__in=[use.resource_id for use in uses],
        source__created_by=workload.application_id,
        source__environment=workload.environment_id,
    ).exclude(target__in=still_used.values("resource")).exclude(
        source__in=parts_of(consumer.resource)
    ).exclude(source=consumer.resource_id).delete()
