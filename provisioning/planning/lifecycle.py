"""Who holds what once a plan has been carried out, and what is destroyed because nothing does.

A resource is held by an active consumer, a live dependent, protection or the policy `retain`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from provisioning.planning.desired import Desired
from provisioning.planning.facts import ResourceFacts, Snapshot


def edges_after(desired: Mapping[str, Desired], snapshot: Snapshot) -> dict[tuple[str, str], str]:
    """Return the environment's dependencies once the desired resources are as they shall be."""
    edges = {edge: kind for edge, kind in snapshot.dependencies.items() if edge[0] not in desired}
    for key, resource in desired.items():
        edges.update({(key, target): kind for target, kind in resource.depends_on.items()})
    return edges


def destroyed_after(
    candidates: Iterable[str],
    consumed: Iterable[str],
    edges: Iterable[tuple[str, str]],
    snapshot: Snapshot,
    desired: Mapping[str, Desired],
) -> set[str]:
    """Return which resources nothing holds, given the keys that still have consumers.

    Starts from `candidates` and goes on to what the destroyed ones needed.
    """
    held = set(consumed) | set(desired)
    dependents: Counter[str] = Counter(target for _, target in edges)
    targets: dict[str, list[str]] = defaultdict(list)
    for source, target in edges:
        targets[source].append(target)
    destroyed: set[str] = set()
    waiting = sorted(set(candidates))
    while waiting:
        key = waiting.pop()
        resource = snapshot.resources.get(key)
        if resource is None or key in destroyed or key in held or dependents[key]:
            continue
        if resource.protected or resource.deletion_policy == "retain":
            continue
        destroyed.add(key)
        dependents.subtract(targets[key])
        waiting += targets[key]
    return destroyed


def why_kept(
    resource: ResourceFacts, consumers: Sequence[str], edges: Iterable[tuple[str, str]]
) -> str:
    """Say in a sentence what holds a resource."""
    if consumers:
        return f"still used by {', '.join(consumers)}"
    if resource.protected:
        return "it is protected"
    if resource.deletion_policy == "retain":
        return "its template retains it"
    needing = sorted(source for source, target in edges if target == resource.key)
    return f"still needed by {', '.join(needing)}"
