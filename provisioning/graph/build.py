from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from graphlib import CycleError as GraphlibCycleError
from graphlib import TopologicalSorter

from provisioning.exceptions import ConductorError


class CycleError(ConductorError):
    """Refuse a graph that nothing can start; `path` begins and ends with the same node."""

    def __init__(self, path: list[str]) -> None:
        self.path = path
        super().__init__(f"These need one another: {' → '.join(path)}.")


def order(nodes: Iterable[str], edges: Iterable[tuple[str, str]]) -> list[str]:
    """Order `nodes` so that each comes after all it needs.

    Nodes that are ready together are sorted, so the order depends on nothing but the graph.
    Raises CycleError.
    """
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for node in nodes:
        sorter.add(node)
    needs = defaultdict(list)
    for source, target in edges:
        sorter.add(source, target)
        needs[source].append(target)
    try:
        sorter.prepare()
    except GraphlibCycleError:
        raise CycleError(_cycle(needs)) from None
    ordered: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        ordered += ready
        sorter.done(*ready)
    return ordered


def dependencies_of(node: str, edges: Iterable[tuple[str, str]]) -> set[str]:
    """Collect what `node` needs, directly or through others."""
    return _reachable(node, ((source, target) for source, target in edges))


def dependents_of(node: str, edges: Iterable[tuple[str, str]]) -> set[str]:
    """Collect what needs `node`, directly or through others."""
    return _reachable(node, ((target, source) for source, target in edges))


def _reachable(start: str, edges: Iterable[tuple[str, str]]) -> set[str]:
    neighbours = defaultdict(list)
    for source, target in edges:
        neighbours[source].append(target)
    reached: set[str] = set()
    waiting = list(neighbours[start])
    while waiting:
        node = waiting.pop()
        if node not in reached:
            reached.add(node)
            waiting += neighbours[node]
    return reached


def _cycle(needs: dict[str, list[str]]) -> list[str]:
    """Find one cycle, the same for the same graph: every walk takes the smallest node first.

    Nodes are colored by the walk itself, without recursion: a chain may be 30,000 long.
    """
    done: set[str] = set()
    for start in sorted(needs):
        path: dict[str, None] = {}
        walk = [(start, iter(sorted(needs[start])))] if start not in done else []
        path[start] = None
        while walk:
            node, targets = walk[-1]
            target = next((each for each in targets if each not in done), None)
            if target is None:
                done.add(node)
                del path[node]
                walk.pop()
            elif target in path:
                members = list(path)
                return [*members[members.index(target) :], target]
            else:
                path[target] = None
                walk.append((target, iter(sorted(needs.get(target, ())))))
    raise AssertionError("graphlib found a cycle that is not there")
