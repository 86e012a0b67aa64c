"""What becomes of those who use a resource that is taken away under them by force."""

from __future__ import annotations

from collections.abc import Mapping

from django.utils import timezone

from provisioning.models import (
    AuditEvent,
    ConsumerState,
    Deployment,
    Resource,
    ResourceConsumer,
    ResourceDependency,
)
from provisioning.models.resources import LIVE_RESOURCE_STATES
from provisioning.planning.plan import Plan
from provisioning.services import transitions


def break_references(
    deployment: Deployment, plan: Plan, resources: Mapping[str, Resource], actor: str
) -> None:
    """End the grace of what a maintenance destroys and, if it is forced, break who uses it."""
    if deployment.resource is None or deployment.ensures:
        return
    resource = resources[deployment.resource.key]
    Resource.objects.filter(pk=resource.pk).update(grace_until=None)
    if deployment.forced:
        break_uses(resource, actor=actor, reason=deployment.reason, deployment=deployment)


def break_uses(
    resource: Resource, *, actor: str, reason: str, deployment: Deployment | None = None
) -> None:
    """Mark the consumers of a locked resource broken, and let its dependents forget it.

    A dependent stays as it is, and its next deployment brings it about again.
    """
    consumers = (
        ResourceConsumer.objects.select_for_update(no_key=True, of=("self",))
        .select_related("workload")
        .filter(resource=resource, state=ConsumerState.ACTIVE)
        .order_by("pk")
    )
    transitions.move_all(
        list(consumers),
        ConsumerState.BROKEN,
        actor=actor,
        reason=reason,
        deployment=deployment,
        ended_at=timezone.now(),
    )
    edges = ResourceDependency.objects.filter(
        target=resource, source__state__in=LIVE_RESOURCE_STATES
    ).select_related("source")
    for edge in edges.order_by("source__key"):
        Resource.objects.filter(pk=edge.source_id).update(applied_spec_digest="", applied_mac="")
        AuditEvent.objects.create(
            actor=actor,
            action="resource.dependency_broken",
            subject_type="resource",
            subject_id=str(edge.source_id),
            subject=edge.source.key,
            reason=f"{resource.key} was taken away: {reason}",
            deployment_id=str(deployment.pk) if deployment else "",
        )
        edge.delete()
