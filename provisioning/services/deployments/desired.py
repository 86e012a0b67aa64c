"""Write what a plan wants into the resources, their dependencies and their consumers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.utils import timezone

from provisioning.models import (
    Deployment,
    Environment,
    Resource,
    ResourceDependency,
    ResourcePool,
    ResourceState,
    SharingPolicy,
    StepAction,
    Workload,
)
from provisioning.models.resources import OF_A_POOL
from provisioning.planning.addresses import environment_of, in_own_terms, path_of
from provisioning.planning.plan import Action, Plan, PlannedResource
from provisioning.services import transitions
from provisioning.services.deployments.claims import claim_members
from provisioning.services.deployments.consumers import write_consumers

LEFT_AS_THEY_ARE = (Action.RELEASE, Action.DESTROY)


def write_desired(
    deployment: Deployment,
    plan: Plan,
    resources: Mapping[str, Resource],
    workloads: Mapping[str, Workload],
    *,
    actor: str,
) -> dict[str, Resource]:
    """Make the desired rows be as the plan says; return its resources by key.

    `resources` are those that exist, locked, by key; `workloads` the application's, by name.
    """
    wanted = [planned for planned in plan.resources if planned.action not in LEFT_AS_THEY_ARE]
    by_key = dict(resources)
    by_key |= _create(
        deployment, [planned for planned in wanted if planned.key not in by_key], actor
    )
    _update(deployment, [planned for planned in wanted if planned.key in resources], resources)
    _mark_changing(deployment, plan, by_key, actor)
    _write_dependencies(wanted, by_key)
    claim_members(deployment, plan, by_key, actor)
    write_consumers(deployment, plan, by_key, workloads, actor)
    return by_key


def _create(
    deployment: Deployment, wanted: list[PlannedResource], actor: str
) -> dict[str, Resource]:
    created = [
        Resource(
            environment=deployment.environment,
            **_origin(deployment, planned),
            key=planned.key,
            name=planned.name,
            uid=planned.uid,
            type=planned.type,
            class_name=planned.class_,
            **_desired(planned, deployment.environment),
        )
        for planned in wanted
    ]
    transitions.begin(created, ResourceState.PROVISIONING, actor=actor, deployment=deployment)
    return {resource.key: resource for resource in created}


def _origin(deployment: Deployment, planned: PlannedResource) -> dict[str, Any]:
    """Say whose a new resource is, and of which pool; one that fills a pool is nobody's yet."""
    application, pool = deployment.application, deployment.pool
    if application is None:
        assert pool is not None  # noqa: S101 - no other maintenance makes anything
        policy = SharingPolicy.OPEN
        return {"owner_team": pool.owner_team, "pool": pool, "sharing_policy": policy}
    origin: dict[str, Any] = {"owner_team": application.team, "created_by": application}
    if planned.key.startswith(OF_A_POOL):
        rows = ResourcePool.objects.filter(environment=deployment.environment)
        origin["pool"] = rows.get(name=planned.key.split("/")[1])
        origin["claimed_at"] = timezone.now()
    return origin


def _update(
    deployment: Deployment, wanted: list[PlannedResource], resources: Mapping[str, Resource]
) -> None:
    for planned in wanted:
        resource = resources[planned.key]
        desired = _desired(planned, deployment.environment)
        if any(getattr(resource, field) != value for field, value in desired.items()):
            for field, value in desired.items():
                setattr(resource, field, value)
            # One by one, which costs less than a statement with a case for each row and field.
            resource.save(update_fields=[*desired, "updated_at"])


def _desired(planned: PlannedResource, here: Environment) -> dict[str, Any]:
    slot, params = planned.slot, planned.params
    if environment_of(planned.key):
        params = in_own_terms(params, planned.key, path_of(here.organisation.name, here.name))
    return {
        "match_slot": slot.slot if slot else "",
        "slot_ordinal": slot.ordinal if slot else None,
        "max_consumers": slot.max_consumers if slot else None,
        "share_conditionally": slot.conditional if slot else False,
        "template_version_id": planned.template.version_id,
        "params": dict(params),
        "context": dict(planned.context),
        "spec_digest": planned.spec_digest,
        "deletion_policy": planned.deletion_policy,
    }


def _mark_changing(
    deployment: Deployment, plan: Plan, resources: Mapping[str, Resource], actor: str
) -> None:
    """Let the states tell what the steps will do."""
    actions = {step.key: step.action for step in plan.steps}
    updated = {planned.key for planned in plan.resources if planned.action == Action.UPDATE}
    deleting = [resources[key] for key, do in actions.items() if do == StepAction.DESTROY]
    updating = [
        resources[key]
        for key, do in actions.items()
        if do == StepAction.ENSURE
        and key in updated
        and resources[key].state == ResourceState.ACTIVE
    ]
    transitions.move_all(deleting, ResourceState.DELETING, actor=actor, deployment=deployment)
    transitions.move_all(updating, ResourceState.UPDATING, actor=actor, deployment=deployment)


def _write_dependencies(
    wanted: Iterable[PlannedResource], resources: Mapping[str, Resource]
) -> None:
    """Make the edges from each planned resource be exactly those that the plan names."""
    edges = {
        (resources[planned.key].pk, resources[target].pk): kind
        for planned in wanted
        for target, kind in planned.depends_on.items()
    }
    sources = [resources[planned.key].pk for planned in wanted]
    stored = ResourceDependency.objects.filter(source__in=sources)
    gone = [edge.pk for edge in stored if (edge.source_id, edge.target_id) not in edges]
    ResourceDependency.objects.filter(pk__in=gone).delete()
    ResourceDependency.objects.bulk_create(
        [
            ResourceDependency(source_id=source, target_id=target, kind=kind)
            for (source, target), kind in edges.items()
        ],
        update_conflicts=True,
        unique_fields=["source", "target"],
        update_fields=["kind"],
    )
