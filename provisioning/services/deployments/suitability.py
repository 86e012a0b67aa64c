"""Whether what a resource requires suits it: its template's validators, on what is really there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from uuid import UUID

from provisioning.exceptions import ConductorError
from provisioning.models import ConsumerState, Resource, ResourceConsumer
from provisioning.planning.validators import unsuitable, validators_of
from provisioning.services.deployments.results import Result, read_result, wished_params
from provisioning.services.deployments.wishes import active_consumers, name_of
from provisioning.snapshot import version_facts


class UnsuitableError(ConductorError):
    """Say that what a resource requires is there, and is not what it demands."""


def unsuitable_needs(resource: Resource) -> list[tuple[ResourceConsumer, str]]:
    """Return the consumers of a resource for which a validator does not hold, with a sentence each.

    Secret outputs are compared as well, so only a worker calls it.
    """
    version = version_facts(resource.template_version)
    validators = validators_of(version)
    if not validators:
        return []
    consumers = list(active_consumers(resource))
    needs = _needs(consumers, validators)
    results = _results(needs.values())
    found = []
    for consumer in consumers:
        for key, checks in validators.items():
            need = needs.get((consumer.workload_id, f"{consumer.alias}/{key}"))
            if need is None:
                continue  # What is reached twice below one alias is expanded once.
            facts = results[need.resource_id].facts(wished_params(need))
            for check in facts.broken(checks):
                whose, why = [name_of(consumer)], facts.sentence(check)
                found.append((consumer, unsuitable(need.resource.key, version, key, whose, why)))
    return found


def _needs(
    consumers: Sequence[ResourceConsumer], keys: Iterable[str]
) -> dict[tuple[int, str], ResourceConsumer]:
    """Read the consumers' own consumers of what is required by these keys, by workload and alias."""
    rows = ResourceConsumer.objects.filter(
        state=ConsumerState.ACTIVE,
        workload__in={each.workload_id for each in consumers},
        alias__in={f"{each.alias}/{key}" for each in consumers for key in keys},
    )
    rows = rows.select_related("resource__template_version__template")
    found = rows.defer("resource__template_version__archive")
    return {(each.workload_id, each.alias): each for each in found}


def _results(needs: Iterable[ResourceConsumer]) -> dict[UUID, Result]:
    by_resource: dict[UUID, list[ResourceConsumer]] = defaultdict(list)
    for each in needs:
        by_resource[each.resource_id].append(each)
    return {
        pk: read_result(each[0].resource, map(wished_params, each))
        for pk, each in by_resource.items()
    }
