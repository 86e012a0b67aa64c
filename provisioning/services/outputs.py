"""What a workload gets from its resources."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from django.contrib.auth.models import User

from provisioning.encryption import decrypt
from provisioning.exceptions import ConductorError
from provisioning.models import Application, ConsumerState, Environment, Resource, ResourceConsumer
from provisioning.models.resources import LIVE_RESOURCE_STATES
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
    ).exclude(alias__contains="/")
    if workload is not None:
        consumers = consumers.filter(workload__name=workload)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for consumer in (
        consumers.select_related("workload", "resource")
        .prefetch_related("resource__outputs")
        .order_by("workload__name", "alias")
    ):
        values, sensitive = stored_outputs(consumer.resource, reveal=reveal)
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


def stored_outputs(
    resource: Resource, *, reveal: bool = True
) -> tuple[dict[str, Any], frozenset[str]]:
    """Return a resource's outputs, and the names of the sensitive ones, masked unless `reveal`."""
    values: dict[str, Any] = {}
    sensitive = set()
    for output in sorted(resource.outputs.all(), key=lambda output: output.key):
        values[output.key] = output.value
        if output.sensitive:
            sensitive.add(output.key)
            values[output.key] = json.loads(decrypt(output.ciphertext)) if reveal else MASK
    return values, frozenset(sensitive)


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
            values[address], secret[address] = stored_outputs(needed)
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
