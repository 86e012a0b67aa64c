"""What resources give: to workloads, to one another, and what each user of one has of its own."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from django.contrib.auth.models import User
from django.db.models import Exists, OuterRef, Q, QuerySet

from provisioning.drivers.base import Consumer
from provisioning.encryption import canonical_json, decrypt, encrypt
from provisioning.exceptions import ConductorError
from provisioning.models import (
    Application,
    ConsumerOutput,
    ConsumerState,
    DependencyKind,
    Environment,
    Resource,
    ResourceConsumer,
    ResourceDependency,
    ResourceOutput,
)
from provisioning.models.resources import LIVE_RESOURCE_STATES
from provisioning.planning.users import OF_A_COMPONENT, alias_name
from provisioning.services import audit
from provisioning.snapshot.view import View

MASK = "••••••"


class RevealRefusedError(ConductorError):
    """Refuse to show secrets to somebody who is not of the application's team."""


def resolved_outputs(
    *,
    application: Application,
    environment: Environment,
    workload: str | None = None,
    reveal: bool = False,
    actor: User | None,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return `{workload: {alias: {output: value}}}` of an application in an environment.

    What a component needs is seen by the component alone: a workload sees what its file declares.

    Sensitive values are masked. With `reveal` they are not; that is audited, and allowed to staff
    and to members of the application's team. Raises RevealRefusedError.
    """
    if reveal:
        _check_may_reveal(application, actor)
    consumers = ResourceConsumer.objects.filter(
        workload__application=application,
        workload__environment=environment,
        state=ConsumerState.ACTIVE,
    ).exclude(alias__contains=OF_A_COMPONENT)
    if workload is not None:
        consumers = consumers.filter(workload__name=workload)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for consumer in (
        consumers.select_related("workload", "resource")
        .prefetch_related("resource__outputs", "own_outputs")
        .order_by("workload__name", "alias")
    ):
        given = consumer.resource.outputs.all(), consumer.own_outputs.all()
        values, sensitive = read_outputs(*given, reveal=reveal)
        found.setdefault(consumer.workload.name, {})[consumer.alias] = values
        if reveal and sensitive:
            audit.record(
                actor=actor,
                action="outputs.revealed",
                subject_type="resource",
                subject_id=consumer.resource_id,
                subject=consumer.resource.key,
                reason=f"For {consumer.workload.name}: {consumer.alias}: "
                f"{', '.join(sorted(sensitive))}.",
            )
    return found


def read_outputs(
    *given: Iterable[ResourceOutput | ConsumerOutput], reveal: bool = True
) -> tuple[dict[str, Any], frozenset[str]]:
    """Return outputs and the names of the sensitive ones, masked unless `reveal`; the last given win."""
    by_key = {output.key: output for outputs in given for output in outputs}
    values: dict[str, Any] = {}
    for key, output in sorted(by_key.items()):
        values[key] = output.value
        if output.sensitive:
            values[key] = json.loads(decrypt(output.ciphertext)) if reveal else MASK
    return values, frozenset(key for key, output in by_key.items() if output.sensitive)


def stored_outputs(
    resource: Resource, *, reveal: bool = True
) -> tuple[dict[str, Any], frozenset[str]]:
    """Return what a resource gives to all alike, as `read_outputs` does."""
    return read_outputs(resource.outputs.all(), reveal=reveal)


def consumers_of(resource: Resource) -> list[tuple[Consumer, frozenset[str]]]:
    """Return who is given a resource's outputs, each with the names of its own sensitive ones.

    That are the aliases that files declare, and the live resources that take its outputs.
    """
    aliases = (
        ResourceConsumer.objects.filter(resource=resource, state=ConsumerState.ACTIVE)
        .exclude(alias__contains=OF_A_COMPONENT)
        .select_related("workload__application")
    )
    dependents = Resource.objects.filter(
        dependencies__target=resource,
        dependencies__kind=DependencyKind.OUTPUT,
        state__in=LIVE_RESOURCE_STATES,
    )
    found = [
        _consumer(
            f"alias/{each.pk}",
            alias_name(each.application_name, each.workload.name, each.alias),
            each.own_outputs.all(),
        )
        for each in aliases.prefetch_related("own_outputs").order_by("pk")
    ]
    view = View(resource.environment)
    return found + [
        _consumer(
            f"resource/{each.pk}",
            view.address(each.key, each.environment_id),
            resource.consumer_outputs.filter(dependent=each),
        )
        for each in dependents.order_by("pk")
    ]


def store_outputs(
    resource: Resource,
    outputs: Mapping[str, Any],
    sensitive: Collection[str],
    by_consumer: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Replace what a resource gives to all, and by a consumer's id to it alone; encrypt `sensitive`."""
    forget_outputs(resource)
    ResourceOutput.objects.bulk_create(
        ResourceOutput(resource=resource, key=key, **_stored(value, key in sensitive))
        for key, value in outputs.items()
    )
    ConsumerOutput.objects.bulk_create(
        ConsumerOutput(
            resource=resource, **_owner(id_), key=key, **_stored(value, key in sensitive)
        )
        for id_, own in (by_consumer or {}).items()
        for key, value in own.items()
    )


def forget_outputs(resource: Resource) -> None:
    """Delete all that a resource gives to anybody."""
    resource.outputs.all().delete()
    resource.consumer_outputs.all().delete()


def not_taken_back() -> QuerySet[ConsumerOutput]:
    """Select what was given to those who use its resource no more, and may still work."""
    takes = ResourceDependency.objects.filter(
        source=OuterRef("dependent"), target=OuterRef("resource"), kind=DependencyKind.OUTPUT
    )
    left = Q(consumer__isnull=False) & ~Q(consumer__state=ConsumerState.ACTIVE)
    return ConsumerOutput.objects.filter(left | (Q(dependent__isnull=False) & ~Exists(takes)))


def _consumer(
    id_: str, name: str, own: Iterable[ConsumerOutput]
) -> tuple[Consumer, frozenset[str]]:
    values, sensitive = read_outputs(own)
    return Consumer(id_, name, values), sensitive


def _owner(id_: str) -> dict[str, str]:
    kind, _, pk = id_.partition("/")
    return {"consumer_id" if kind == "alias" else "dependent_id": pk}


def _stored(value: Any, sensitive: bool) -> dict[str, Any]:
    if sensitive:
        return {"sensitive": True, "ciphertext": encrypt(canonical_json(value))}
    return {"value": value}


def needed_outputs(
    resource: Resource, keys: Collection[str]
) -> tuple[dict[str, Mapping[str, Any]], dict[str, frozenset[str]]]:
    """Return the outputs of the resources with these keys, and the names of the sensitive ones.

    `keys` are as the resource names others: addresses for those of other environments. Only what it
    depends on gives any: not what its owner revoked the use of.
    """
    values: dict[str, Mapping[str, Any]] = {}
    secret: dict[str, frozenset[str]] = {}
    if keys:
        view = View(resource.environment)
        rows = Resource.objects.filter(
            view.resources_at(keys), state__in=LIVE_RESOURCE_STATES, dependents__source=resource
        )
        for needed in rows.prefetch_related("outputs"):
            address = view.address(needed.key, needed.environment_id)
            own = needed.consumer_outputs.filter(dependent=resource)
            values[address], secret[address] = read_outputs(needed.outputs.all(), own)
    return values, secret


def _check_may_reveal(application: Application, actor: User | None) -> None:
    if actor is None or not (
        actor.is_staff or application.team.memberships.filter(user=actor).exists()
    ):
        who = actor.get_username() if actor else "somebody unknown"
        raise RevealRefusedError(
            f"The secrets of {application.name} are shown only to staff and to members of its team "
            f"{application.team.name}, and {who} is neither."
        )
