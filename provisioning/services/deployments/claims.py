"""Claim the members of pools that a plan gives to its aliases."""

from __future__ import annotations

from collections.abc import Mapping

from django.utils import timezone

from provisioning.exceptions import ConductorError
from provisioning.models import (
    AuditEvent,
    ConsumerMode,
    Deployment,
    Resource,
    ResourceState,
)
from provisioning.planning.plan import Plan
from provisioning.queue import doorbell
from provisioning.queue.schedules import REGULAR, TEND_POOLS


class MemberTakenError(ConductorError):
    """Say that a member of a pool went to somebody else."""


def claim_members(
    deployment: Deployment, plan: Plan, resources: Mapping[str, Resource], actor: str
) -> None:
    """Make the ready members that a plan binds the application's, each by a conditional update.

    `resources` are the plan's, locked, by key. A claimed member belongs to the application's team, and
    its pool is filled up again.
    Raises MemberTakenError if one is not ready any more; then nothing may be stored.
    """
    application = deployment.application
    for binding in plan.bindings:
        member = resources[binding.key]
        if binding.mode != ConsumerMode.POOL or member.claimed_at is not None:
            continue
        assert application is not None  # noqa: S101 - maintenance binds nothing
        member.claimed_at = timezone.now()
        member.owner_team = application.team
        ready = Resource.objects.filter(
            pk=member.pk, pool=member.pool_id, claimed_at=None, state=ResourceState.ACTIVE
        )
        claim = {"claimed_at": member.claimed_at, "owner_team": application.team}
        if not ready.update(**claim, updated_at=member.claimed_at):
            raise MemberTakenError(f"{member.key} is not ready any more; deploy again.")
        AuditEvent.objects.create(
            actor=actor,
            action="resource.claimed",
            subject_type="resource",
            subject_id=str(member.pk),
            subject=member.key,
            reason=f"By {application}/{binding.workload}.{binding.alias}.",
            deployment_id=str(deployment.pk),
        )
        doorbell.ring(REGULAR, task=TEND_POOLS)
