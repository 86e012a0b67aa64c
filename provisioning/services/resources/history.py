"""The lineage of a resource: everything the audit trail tells of it, from first to last."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.models import User
from django.db.models import Q

from provisioning.models import (
    Approval,
    AuditEvent,
    Deployment,
    Environment,
    ResourceConsumer,
    Step,
)
from provisioning.services.resources.find import find_past_resources


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened to a resource; `deployment` is the number of its cause, or ""."""

    at: datetime
    actor: str
    action: str
    subject: str
    reason: str
    deployment: str


def resource_history(*, environment: Environment, name: str, actor: User) -> list[Happening]:
    """Return what happened to all resources that ever had this name, key or id, oldest first.

    That is what was done to them, to their consumers and steps, the approvals that were asked for,
    and the deployments that did it. Raises UnknownResourceError.
    """
    resources = find_past_resources(environment=environment, name=name, actor=actor)
    ids = [resource.pk for resource in resources]
    events = AuditEvent.objects.filter(_about(ids)).order_by("pk")
    return [
        Happening(
            event.at, event.actor, event.action, event.subject, event.reason, event.deployment_id
        )
        for event in events
    ]


def _about(ids: Sequence[object]) -> Q:
    """Match the events about these resources and about what refers to them."""
    consumers = ResourceConsumer.objects.filter(resource__in=ids)
    deployments = Deployment.objects.filter(
        Q(steps__resource__in=ids) | Q(resource__in=ids) | Q(consumers__resource__in=ids)
    )
    return (
        _of("resource", ids)
        | _of("consumer", consumers.values_list("pk", flat=True))
        | _of("step", Step.objects.filter(resource__in=ids).values_list("pk", flat=True))
        | _of("approval", Approval.objects.filter(resource__in=ids).values_list("pk", flat=True))
        | _of("deployment", deployments.values_list("pk", flat=True))
    )


def _of(subject_type: str, ids: Iterable[object]) -> Q:
    return Q(subject_type=subject_type, subject_id__in={str(id_) for id_ in ids})
