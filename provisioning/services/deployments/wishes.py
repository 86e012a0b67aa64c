"""Tell consumers what became of their wishes, once a resource is as it was planned."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from django.db.models import QuerySet, prefetch_related_objects

from provisioning.models import (
    AuditEvent,
    ConsumerState,
    Deployment,
    Resource,
    ResourceConsumer,
    ResourceTemplateVersion,
    ShrinkPolicy,
)
from provisioning.planning.checks import checks_of
from provisioning.planning.merging import Unmet, Wish, claims_of, rules_of, unmet
from provisioning.planning.plan import Plan
from provisioning.services.audit import record
from provisioning.services.deployments.results import (
    Result,
    read_open_result,
    read_result,
    wished_params,
)

NOT_MET = "consumer.wish_not_met"


def floor_of(resource: Resource) -> Mapping[str, Any]:
    """Return the params below which a resource that was just brought about does not shrink."""
    version = resource.template_version
    keeps = version.merge_rules and version.shrink != ShrinkPolicy.APPLY
    return resource.params if keeps else {}


def tell_unmet(resource: Resource, deployment: Deployment, *, changed: bool) -> None:
    """Compare what its consumers asked for with what a resource is, and tell whom it fails.

    If nothing of it has changed, that is only news to those that the deployment covers. Each wish
    that is not met becomes an audit event of that consumer and deployment. Secret outputs are
    compared as well, so only a worker calls it.
    """
    version = resource.template_version
    if version.merge_rules or version.checks:
        rows = active_consumers(resource)
        consumers = list(rows if changed else _own(rows, deployment))
        wishes = [wished_params(each) for each in consumers]
        result = read_result(resource, wishes) if version.checks else None
        _tell_each(consumers, resource, result, deployment.pk)


def tell_joiners(deployment: Deployment, plan: Plan, resources: Mapping[str, Resource]) -> None:
    """Tell the deployed workloads whose wish is not met by what no step is going to change.

    `resources` are the plan's by key. What only secrets can tell has a step in the plan.
    """
    joined = {each.key for each in plan.bindings} - {step.key for step in plan.steps}
    planned = [each for each in plan.resources if each.key in joined]
    versions = ResourceTemplateVersion.objects.exclude(checks=[]).filter(
        pk__in={each.template.version_id for each in planned}
    )
    checked = set(versions.values_list("pk", flat=True))
    for each in planned:
        if each.unmet or each.template.version_id in checked:
            resource = resources[each.key]
            own = list(_own(active_consumers(resource), deployment))
            _tell_each(own, resource, read_open_result(resource), deployment.pk)


def wishes_not_met(deployment: Deployment) -> list[str]:
    """Return what consumers were told of the wishes that a deployment has left unmet."""
    events = AuditEvent.objects.filter(action=NOT_MET, deployment_id=str(deployment.pk))
    told = events.order_by("pk").values_list("subject", "reason")
    return list(dict.fromkeys(f"{subject}: {reason}" for subject, reason in told))


def active_consumers(resource: Resource) -> QuerySet[ResourceConsumer]:
    """Select who uses a resource, with their workloads."""
    consumers = ResourceConsumer.objects.filter(resource=resource, state=ConsumerState.ACTIVE)
    return consumers.select_related("workload__application").order_by("pk")


def name_of(consumer: ResourceConsumer) -> str:
    """Name a consumer in a sentence: its application, workload and alias."""
    return str(_wish(consumer).consumer)


def note_unmet(consumer: ResourceConsumer, sentence: str, deployment_id: int) -> None:
    """Tell a consumer that its wish is not met."""
    record(
        actor=None,
        action=NOT_MET,
        subject_type="consumer",
        subject_id=consumer.pk,
        subject=name_of(consumer),
        reason=sentence,
        deployment_id=deployment_id,
    )


def _own(
    consumers: QuerySet[ResourceConsumer], deployment: Deployment
) -> QuerySet[ResourceConsumer]:
    return consumers.filter(
        workload__application=deployment.application_id,
        workload__environment=deployment.environment_id,
        workload__name__in=deployment.workload_names,
    )


def _tell_each(
    consumers: Sequence[ResourceConsumer],
    resource: Resource,
    result: Result | None,
    deployment_id: int,
) -> None:
    """Tell each consumer what the merge did not give it and, if there is a result, its checks."""
    if result is not None:
        prefetch_related_objects(consumers, "own_outputs")
    rules = rules_of(resource.template_version.merge_rules)
    checks = checks_of(resource.template_version.checks)
    for consumer in consumers:
        for each in unmet(claims_of(_wish(consumer)), rules, resource.params) if rules else ():
            note_unmet(consumer, _sentence(resource, each), deployment_id)
        if result is None:
            continue
        facts = result.to(consumer).facts(wished_params(consumer))
        for check in facts.broken(checks):
            sentence = f"{resource.key} is not as it asked: {facts.sentence(check)}"
            note_unmet(consumer, sentence, deployment_id)


def _wish(consumer: ResourceConsumer) -> Wish:
    params = wished_params(consumer)
    return Wish(consumer.application_name, consumer.workload.name, consumer.alias, params)


def _sentence(resource: Resource, wish: Unmet) -> str:
    given = "not set" if wish.given is None else json.dumps(wish.given, ensure_ascii=False)
    asked = json.dumps(wish.asked, ensure_ascii=False)
    return f"{resource.key} has the {wish.param} {given}, and it asked for {asked}."
