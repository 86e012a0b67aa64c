"""Destroy again what a deployment has created, if it asked for that and did not succeed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from django.db import transaction
from django.utils import timezone

from provisioning import snapshot
from provisioning.exceptions import ConductorError
from provisioning.models import (
    ConsumerState,
    Deployment,
    DeploymentKind,
    DeploymentStatus,
    Resource,
    ResourceConsumer,
    ResourceState,
    Step,
)
from provisioning.models.resources import LIVE_RESOURCE_STATES
from provisioning.models.steps import UNFINISHED_STEP_STATUSES
from provisioning.planning.maintenance import unneeded
from provisioning.planning.plan import Action
from provisioning.services import transitions
from provisioning.services.deployments.requests import Request
from provisioning.services.deployments.start import carry_out, store_plan


def roll_back(deployment: Deployment) -> str:
    """Start the maintenance that destroys what a deployment created; return what there is to tell.

    What others use, need or work on stays, and so does what is held in any other way. The caller
    holds the environment's lock, and the deployment has ended.
    """
    created = _created(deployment)
    if not created:
        return "There is nothing to roll back."
    try:
        with transaction.atomic():
            told = _destroy(deployment, created)
    except ConductorError as error:
        return f"It could not be rolled back: {error}"
    return told


def _created(deployment: Deployment) -> list[Resource]:
    """Lock and return the live resources that the deployment made, as far as nobody works on them."""
    planned = {
        each["key"] for each in deployment.plan["resources"] if each["action"] == Action.CREATE
    }
    made = Step.objects.filter(
        deployment=deployment,
        resource__environment=deployment.environment,
        resource__key__in=planned,
    )
    at_work = Step.objects.filter(status__in=UNFINISHED_STEP_STATUSES)
    live = [state for state in LIVE_RESOURCE_STATES if state != ResourceState.DELETING]
    return list(
        Resource.objects.select_for_update(no_key=True)
        .filter(pk__in=made.values("resource"), state__in=live)
        .exclude(pk__in=at_work.values("resource"))
        .order_by("pk")
    )


def _destroy(deployment: Deployment, created: Collection[Resource]) -> str:
    own = (
        ResourceConsumer.objects.select_for_update(no_key=True, of=("self",))
        .select_related("workload__application")
        .filter(deployment=deployment, resource__in=created, state=ConsumerState.ACTIVE)
        .order_by("pk")
    )
    uses = {(each.workload.application.name, each.workload.name, each.alias): each for each in own}
    facts = snapshot.take_environment(deployment.environment)
    others = [
        each
        for each in facts.consumers
        if (each.application, each.workload, each.alias) not in uses
    ]
    keys = {resource.key for resource in created}
    going = unneeded(keys, replace(facts, consumers=others))
    kept = ", ".join(sorted(keys - going))
    if not going:
        return f"Nothing is rolled back: others use it, or it is held ({kept})."
    gone = {resource.pk for resource in created if resource.key in going}
    transitions.move_all(
        [each for each in uses.values() if each.resource_id in gone],
        ConsumerState.WITHDRAWN,
        reason=f"Deployment {deployment.pk} is rolled back.",
        ended_at=timezone.now(),
    )
    rollback = _start(deployment, going)
    told = f"Deployment {rollback.pk} destroys again what it created: {', '.join(sorted(going))}."
    return f"{told} Others use, or something holds: {kept}." if kept else told


def _start(deployment: Deployment, keys: Collection[str]) -> Deployment:
    """Store and start the maintenance; nothing can block it, since nobody works on the resources."""
    label = DeploymentStatus(deployment.status).label.lower()
    reason = f"Roll-back of deployment {deployment.pk} ({label})."
    rollback = Deployment(
        kind=DeploymentKind.MAINTENANCE,
        application=deployment.application,
        environment=deployment.environment,
        rollback_of=deployment,
        reason=reason,
        priority=deployment.priority,
        requested_by=deployment.requested_by,
    )
    request = Request(roll_back=sorted(keys))
    plan, resources = request.plan_on_locked(deployment.application, deployment.environment)
    store_plan(rollback, plan)
    transitions.begin([rollback], DeploymentStatus.WAITING, actor=transitions.SYSTEM, reason=reason)
    carry_out(rollback, plan, resources, ())
    return rollback
