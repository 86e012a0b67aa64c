"""What a resource has become, as the checks of its consumers see it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from provisioning.models import Resource, ResourceConsumer
from provisioning.planning.checks import OUTPUTS, PARAMS, WISH, Facts, facts_of
from provisioning.planning.conditions import UNKNOWN
from provisioning.planning.facts import VersionFacts
from provisioning.planning.references import keys_in, sensitive_params
from provisioning.services.outputs import needed_outputs, read_outputs, stored_outputs
from provisioning.snapshot import version_facts
from provisioning.snapshot.view import View


@dataclass(frozen=True, slots=True)
class Result:
    """The outputs of a resource, and those of others that its params and wishes refer to.

    `secret` and `secret_needed` name those that may be compared and not be shown. If it is `open`,
    their values are UNKNOWN.
    """

    version: VersionFacts
    params: Mapping[str, Any]
    outputs: Mapping[str, Any]
    secret: frozenset[str]
    needed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    secret_needed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    open: bool = False

    def to(self, consumer: ResourceConsumer) -> Result:
        """Return what a consumer sees of it: its own outputs over those that all have."""
        own, secret = read_outputs(consumer.own_outputs.all(), reveal=not self.open)
        if self.open:
            own |= dict.fromkeys(secret, UNKNOWN)
        return replace(self, outputs={**self.outputs, **own}, secret=self.secret | secret)

    def facts(self, wish: Mapping[str, Any] | None) -> Facts:
        """Return what is compared for a consumer that asks for this."""
        hidden = {(OUTPUTS, name) for name in self.secret}
        for root, params in ((WISH, wish or {}), (PARAMS, self.params)):
            hidden |= {(root, name) for name in sensitive_params(params, self.secret_needed)}
        return facts_of(
            self.version,
            wish=wish,
            params=self.params,
            outputs=self.outputs,
            needed=self.needed,
            secret=frozenset(hidden),
        )


def wished_params(consumer: ResourceConsumer) -> Mapping[str, Any] | None:
    """Return what a consumer asks for, in the terms of the resource's environment."""
    if not consumer.crosses:
        return consumer.params
    view = View(consumer.resource.environment)
    params: Mapping[str, Any] | None = view.params(
        consumer.params, consumer.workload.environment_id
    )
    return params


def read_result(resource: Resource, wishes: Iterable[Mapping[str, Any] | None]) -> Result:
    """Read what there is, secrets in clear, for these wishes; only a worker calls it."""
    outputs, secret = stored_outputs(resource)
    keys = keys_in([resource.params, *wishes])
    needed, secret_needed = needed_outputs(resource, keys)
    version = version_facts(resource.template_version)
    return Result(version, resource.params, outputs, secret, needed, secret_needed)


def read_open_result(resource: Resource) -> Result:
    """Read what is no secret; the rest, and what a reference gives, is UNKNOWN."""
    outputs, secret = stored_outputs(resource, reveal=False)
    outputs |= dict.fromkeys(secret, UNKNOWN)
    version = version_facts(resource.template_version)
    return Result(version, resource.params, outputs, secret, open=True)
