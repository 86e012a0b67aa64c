"""What a deployment needs but cannot have: adopted differently, gone, or to be made elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set

from provisioning.planning.addresses import environment_of
from provisioning.planning.desired import Desired
from provisioning.planning.facts import Snapshot
from provisioning.planning.maintenance import short_name
from provisioning.planning.references import keys_in
from provisioning.planning.requirements import Requirement
from provisioning.score.workload import Problem


def availability_problems(
    requirements: Sequence[Requirement], desired: Mapping[str, Desired], snapshot: Snapshot
) -> Iterator[Problem]:
    """Check that nothing would change what was adopted, and that all that is needed is there."""
    told: set[str] = set()
    required = {each.key for each in requirements}
    for requirement in requirements:
        each = desired.get(requirement.key)
        if each is None or each.key in told:
            continue
        problem = (
            _adopted(requirement, each)
            or _elsewhere(requirement, each)
            or _missing(requirement, each, required, snapshot)
        )
        if problem:
            told.add(each.key)
            yield problem


def _adopted(requirement: Requirement, each: Desired) -> Problem | None:
    present = each.present
    if present is None or not present.adopted or each.params == present.params:
        return None
    differing = sorted(
        name
        for name in {*each.params, *present.params}
        if each.params.get(name) != present.params.get(name)
    )
    return requirement.problem(
        f"{short_name(each.key)} was adopted: Conductor does not change it, and {', '.join(differing)} "
        "would have to change.",
        below="params",
        hint="name no params to take it as it is",
    )


def _elsewhere(requirement: Requirement, each: Desired) -> Problem | None:
    """Refuse to make anything in another environment, such as what a resource there lacks."""
    if each.present is not None or not (path := environment_of(each.key)):
        return None
    return requirement.problem(
        f"{short_name(each.key)} would have to be made in the environment {path}, and a deployment "
        "makes resources in its own environment alone.",
        hint="deploy what is there again, which makes it, or write `scope: environment`",
    )


def _missing(
    requirement: Requirement, each: Desired, required: Set[str], snapshot: Snapshot
) -> Problem | None:
    """Refuse to build on what was destroyed by force and is not made again by this deployment."""
    # What is new needs what it declares; the stored wishes of others come with what exists.
    used = keys_in(each.params) if each.present else ()
    gone = [
        key
        for key in sorted({*each.depends_on, *used})
        if key not in required
        and (key not in snapshot.resources or snapshot.resources[key].deleting)
    ]
    if not gone:
        return None
    asking = sorted(
        {
            consumer.application
            for consumer in snapshot.consumers
            if consumer.key == each.key and consumer.application != snapshot.application
        }
    )
    return requirement.problem(
        f"{short_name(each.key)} needs {', '.join(map(short_name, gone))}, which has been destroyed.",
        hint=f"deploy {', '.join(asking)} again first, which makes it" if asking else "",
    )
