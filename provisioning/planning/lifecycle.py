"""Who holds what once a plan has been carried out, and what is destroyed because nothing does.

A resource is held by an active consumer, a live dependent, protection, the policy `retain`, because
it was adopted, because it waits unclaimed in a pool, or by a grace period: only maintenance
destroys what has one, after its end.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from provisioning.planning.desired import Desired
from provisioning.planning.facts import ResourceFacts, Snapshot, VersionFacts


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
    condemned: frozenset[str] = frozenset(),
) -> set[str]:
    """Return which resources nothing holds, given the keys that still have consumers.

    Starts from `candidates` and goes on to what the destroyed ones needed. The `condemned` are
    destroyed whatever holds them.
    """
    held = set(consumed) | set(desired)
    dependents: Counter[str] = Counter(target for _, target in edges)
    targets: dict[str, list[str]] = defaultdict(list)
    for source, target in edges:
        targets[source].append(target)
    destroyed: set[str] = set()
    waiting = sorted({*candidates, *condemned})
    while waiting:
        key = waiting.pop()
        resource = snapshot.resources.get(key)
        if resource is None or key in destroyed:
            continue
        if key not in condemned and (key in held or dependents[key] or _is_kept(resource)):
            continue
        destroyed.add(key)
        dependents.subtract(targets[key])
        waiting += targets[key]
    return destroyed


def _is_kept(resource: ResourceFacts) -> bool:
    retained = resource.deletion_policy == "retain"
    waits = bool(resource.pool) and not resource.claimed
    return resource.protected or retained or resource.adopted or waits or bool(resource.grace)


def deletion_policy(present: ResourceFacts | None, version: VersionFacts) -> str:
    """Return the policy that a plan gives a resource; an existing one keeps what was chosen for it.

    Only an upgrade changes it, and then only to `retain`.
    """
    if present is None:
        return version.deletion_policy
    upgraded = present.version.id != version.id and version.deletion_policy == "retain"
    return version.deletion_policy if upgraded else present.deletion_policy


def why_kept(
    resource: ResourceFacts, consumers: Sequence[str], edges: Iterable[tuple[str, str]]
) -> str:
    """Say in a sentence what holds a resource."""
    if consumers:
        return f"still used by {', '.join(consumers)}"
    if resource.protected:
        return "it is protected"
    if resource.adopted:
        return "it was adopted"
    if resource.deletion_policy == "retain":
        return "its deletion policy is retain"
    needing = sorted(source for source, target in edges if target == resource.key)
    if not needing and resource.grace:
        return f"nobody uses it; destroyed in {resource.grace} s unless somebody joins"
    return f"still needed by {', '.join(needing)}"
