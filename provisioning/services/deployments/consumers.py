"""Write who consumes what once a plan is carried out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from django.db.models import QuerySet
from django.utils import timezone

from provisioning.models import ConsumerState, Deployment, Resource, ResourceConsumer, Workload
from provisioning.planning.plan import Plan, PlannedBinding
from provisioning.services import transitions

Place: TypeAlias = tuple[str, str]
"""A workload's name and its alias."""


def write_consumers(
    deployment: Deployment,
    plan: Plan,
    resources: Mapping[str, Resource],
    workloads: Mapping[str, Workload],
    actor: str,
) -> None:
    """Release what the plan releases, move what it binds elsewhere, and add what it binds anew.

    A consumer that was pending until its owner's approval becomes active.
    """
    rows = ResourceConsumer.objects.all()
    active = by_place(rows.filter(workload__in=workloads.values(), state=ConsumerState.ACTIVE))
    pending = by_place(rows.filter(deployment=deployment, state=ConsumerState.PENDING))
    leaving = {(release.workload, release.alias) for release in plan.releases}
    allowed: list[ResourceConsumer] = []
    joining: list[ResourceConsumer] = []
    for binding in plan.bindings:
        place = (binding.workload, binding.alias)
        resource = resources[binding.key]
        consumer = active.get(place)
        if consumer is not None and consumer.resource_id == resource.pk:
            _keep(consumer, binding)
            leaving.discard(place)
            continue
        if consumer is not None:
            leaving.add(place)
        asked = pending.get(place)
        if asked is not None and asked.resource_id == resource.pk:
            _keep(asked, binding)
            allowed.append(pending.pop(place))
            continue
        joining.append(new_consumer(deployment, binding, resource, workloads[binding.workload]))
    left = [active[place] for place in sorted(leaving) if place in active]
    transitions.move_all(
        left, ConsumerState.RELEASED, actor=actor, deployment=deployment, ended_at=timezone.now()
    )
    withdraw_elsewhere(list(pending.values()), actor)
    transitions.move_all(allowed, ConsumerState.ACTIVE, actor=actor, deployment=deployment)
    transitions.begin(joining, ConsumerState.ACTIVE, actor=actor, deployment=deployment)


def by_place(rows: QuerySet[ResourceConsumer]) -> dict[Place, ResourceConsumer]:
    """Lock consumers and return them by workload and alias."""
    locked = rows.select_for_update(no_key=True, of=("self",)).select_related("workload")
    return {(each.workload.name, each.alias): each for each in locked.order_by("pk")}


def new_consumer(
    deployment: Deployment, binding: PlannedBinding, resource: Resource, workload: Workload
) -> ResourceConsumer:
    """Make the consumer that a binding asks for; the caller stores it with its state."""
    return ResourceConsumer(
        resource=resource,
        workload=workload,
        deployment=deployment,
        alias=binding.alias,
        **_asked(binding),
    )


def withdraw_elsewhere(consumers: list[ResourceConsumer], actor: str) -> None:
    """Withdraw pending consumers whose aliases the plan binds to something else by now."""
    transitions.move_all(
        consumers,
        ConsumerState.WITHDRAWN,
        actor=actor,
        reason="The changed plan binds it to another resource.",
        ended_at=timezone.now(),
    )


def _asked(binding: PlannedBinding) -> dict[str, Any]:
    return {
        "mode": binding.mode,
        "params": None if binding.params is None else dict(binding.params),
        "depends_on": list(binding.depends_on),
        "priority": binding.priority,
        "matching": None if binding.matching is None else dict(binding.matching),
    }


def _keep(consumer: ResourceConsumer, binding: PlannedBinding) -> None:
    asked = _asked(binding)
    if any(getattr(consumer, field) != value for field, value in asked.items()):
        for field, value in asked.items():
            setattr(consumer, field, value)
        consumer.save(update_fields=list(asked))
