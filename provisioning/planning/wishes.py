"""New wishes on what stays as it is, and which of them only a worker can look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from provisioning.planning.checks import OUTPUTS, PARAMS, WISH, Check, checks_of
from provisioning.planning.criteria import json_text
from provisioning.planning.desired import Desired
from provisioning.planning.facts import Snapshot
from provisioning.planning.references import has_placeholder
from provisioning.planning.requirements import Requirement
from provisioning.planning.validators import Demands, place_of


def looked_at(
    requirements: Sequence[Requirement],
    desired: Mapping[str, Desired],
    demands: Demands,
    snapshot: Snapshot,
) -> frozenset[str]:
    """Collect the resources that get a step although nothing of them may change.

    Somebody asks anew, and whether the wish is met is told by secrets, which a worker alone reads,
    or decides whether what is asked for suits the component that asks.
    """
    found = set()
    for each in _asking_anew(requirements, snapshot):
        now = desired.get(each.key)
        if now is None:
            continue
        if any(_needs_secrets(check, each, now) for check in checks_of(now.version.checks)):
            found.add(each.key)
        demand = demands.of(place_of(each, snapshot.application), each.params)
        if demand is not None:
            facts = demand.facts(now.version, now.params)
            if any(facts.verdict(check) is None for check in demand.checks):
                found.add(demand.component_key)
    return frozenset(found)


def _asking_anew(requirements: Sequence[Requirement], snapshot: Snapshot) -> Iterator[Requirement]:
    """Walk what is not bound yet, or was for another wish."""
    bound = {
        place_of(each): each
        for each in snapshot.consumers
        if each.application == snapshot.application
    }
    for each in requirements:
        before = bound.get(place_of(each, snapshot.application))
        if (
            before is None
            or before.key != each.key
            or json_text(before.params) != json_text(each.params)
        ):
            yield each


def _needs_secrets(check: Check, requirement: Requirement, desired: Desired) -> bool:
    """Tell whether a check that concerns a wish compares a secret, or what a reference gives."""
    wish, outputs = requirement.params or {}, desired.version.outputs
    if not check.concerns(wish):
        return False
    names = check.condition.names
    return (
        any(outputs.get(name, outputs.get("*", False)) for name in names(OUTPUTS))
        or any(has_placeholder(wish[name]) for name in names(WISH))
        or any(has_placeholder(desired.params.get(name)) for name in names(PARAMS))
    )
