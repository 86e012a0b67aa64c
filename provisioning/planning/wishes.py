"""New wishes on what stays as it is, and which of them only a worker can look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from provisioning.planning.checks import OUTPUTS, PARAMS, WISH, Check, checks_of
from provisioning.planning.criteria import json_text
from provisioning.planning.desired import Desired
from provisioning.planning.facts import Snapshot
from provisioning.planning.references import has_placeholder
from provisioning.planning.requirements import Requirement


def looked_at(
    requirements: Sequence[Requirement], desired: Mapping[str, Desired], snapshot: Snapshot
) -> frozenset[str]:
    """Collect the resources that get a step although nothing of them may change.

    That is where somebody asks anew, and only secrets, which a worker alone reads, tell whether
    that wish is met.
    """
    bound = {
        (each.workload, each.alias): each
        for each in snapshot.consumers
        if each.application == snapshot.application
    }
    found = set()
    for each in requirements:
        now = desired.get(each.key)
        if now is None or not now.version.checks:
            continue
        before = bound.get((each.workload.name, each.declaration.alias))
        stays = before is not None and before.key == each.key
        if before is not None and stays and json_text(before.params) == json_text(each.params):
            continue
        if any(_needs_secrets(check, each, now) for check in checks_of(now.version.checks)):
            found.add(each.key)
    return frozenset(found)


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
