"""Which steps a plan needs, and which of them each must wait for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from provisioning.graph.build import order
from provisioning.planning.facts import Snapshot
from provisioning.planning.plan import PlannedStep
from provisioning.planning.users import UserChange

Edges = Mapping[tuple[str, str], str]


def output_dependents(keys: Iterable[str], edges: Edges) -> set[str]:
    """Collect everything that takes outputs, directly or through others, from the given keys."""
    takers: dict[str, list[str]] = defaultdict(list)
    for (source, target), kind in edges.items():
        if kind == "output":
            takers[target].append(source)
    return _reached(keys, takers)


def dependency_closure(keys: Iterable[str], edges: Edges) -> set[str]:
    """Collect the given keys and everything they need, directly or through others."""
    needs: dict[str, list[str]] = defaultdict(list)
    for source, target in edges:
        needs[source].append(target)
    keys = set(keys)
    return keys | _reached(keys, needs)


def planned_steps(
    ensured: Collection[str],
    destroyed: Collection[str],
    edges: Edges,
    snapshot: Snapshot,
    users: Mapping[str, UserChange],
) -> tuple[PlannedStep, ...]:
    """Order the steps: ensures after what they need, destroys after all that needed the destroyed.

    `edges` are those after the plan; a destroy also waits for the ensures of former dependents. So
    does, unless another ensure waits for it, what takes back in `users` what these were given.
    """
    needs: dict[str, set[str]] = {key: set() for key in [*ensured, *destroyed]}
    for source, target in edges:
        if source in ensured and target in ensured:
            needs[source].add(target)
    needed = {target for source, target in edges if source in ensured}
    losing = {key for key, change in users.items() if change.leaving} - needed
    for source, target in snapshot.dependencies:
        left = target in losing and (source, target) not in edges
        if source in needs and (target in destroyed or left):
            needs[target].add(source)
    ordered = order(needs, ((key, other) for key, others in needs.items() for other in others))
    return tuple(
        PlannedStep(key, "destroy" if key in destroyed else "ensure", tuple(sorted(needs[key])))
        for key in ordered
    )


def _reached(start: Iterable[str], neighbours: Mapping[str, list[str]]) -> set[str]:
    reached: set[str] = set()
    waiting = [each for key in start for each in neighbours.get(key, ())]
    while waiting:
        key = waiting.pop()
        if key not in reached:
            reached.add(key)
            waiting += neighbours.get(key, ())
    return reached
