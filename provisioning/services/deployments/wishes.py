"""Tell consumers what became of their wishes, once a resource is as it was planned."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from provisioning.models import ConsumerState, Resource, ResourceConsumer, ShrinkPolicy
from provisioning.planning.merging import Unmet, Wish, claims_of, rules_of, unmet
from provisioning.services.audit import record


def floor_of(resource: Resource) -> Mapping[str, Any]:
    """Return the params below which a resource that was just brought about does not shrink."""
    version = resource.template_version
    keeps = version.merge_rules and version.shrink != ShrinkPolicy.APPLY
    return resource.params if keeps else {}


def tell_unmet(resource: Resource, deployment_id: int) -> list[Unmet]:
    """Compare what every consumer asked for with what the resource is, and tell whom it fails.

    Each wish that is not met becomes an audit event of that consumer and deployment.
    """
    rules = rules_of(resource.template_version.merge_rules)
    if not rules:
        return []
    consumers = (
        ResourceConsumer.objects.filter(resource=resource, state=ConsumerState.ACTIVE)
        .select_related("workload__application")
        .order_by("pk")
    )
    told = []
    for consumer in consumers:
        workload = consumer.workload
        wish = Wish(workload.application.name, workload.name, consumer.alias, consumer.params)
        for each in unmet(claims_of(wish), rules, resource.params):
            _tell(consumer, resource, each, deployment_id)
            told.append(each)
    return told


def _tell(consumer: ResourceConsumer, resource: Resource, wish: Unmet, deployment_id: int) -> None:
    given = "not set" if wish.given is None else json.dumps(wish.given, ensure_ascii=False)
    record(
        actor=None,
        action="consumer.wish_not_met",
        subject_type="consumer",
        subject_id=consumer.pk,
        subject=str(wish.consumer),
        reason=(
            f"{resource.key} has the {wish.param} {given}, and it asked for "
            f"{json.dumps(wish.asked, ensure_ascii=False)}."
        ),
        deployment_id=deployment_id,
    )
