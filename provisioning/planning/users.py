"""Who is given a resource's outputs: the aliases that files declare, and resources that take them.

A template that `uses` its consumers gives each of them outputs of its own, such as a password. One
who comes or goes changes nothing for the others: the plan has a step for it, but no update.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from provisioning.planning.facts import ConsumerFacts, ResourceFacts, Snapshot, VersionFacts

if TYPE_CHECKING:
    from provisioning.planning.desired import Desired
    from provisioning.planning.plan import PlannedConsumer

USES_CONSUMERS = "consumers"
OF_A_COMPONENT = "/"
"""An alias with this in it is no file's: what it is given, the component alone sees."""

Edges: TypeAlias = Mapping[tuple[str, str], str]
User: TypeAlias = tuple[str, ...]
"""A resource's key alone, or an application, a workload and its alias."""


@dataclass(frozen=True, slots=True)
class UserChange:
    """Who is given outputs of its own by one resource from now on, and who no more, by name."""

    joining: tuple[str, ...] = ()
    leaving: tuple[str, ...] = ()


NO_CHANGE = UserChange()


def alias_name(application: str, workload: str, alias: str) -> str:
    """Name a workload's alias among all of an environment."""
    return f"{application}/{workload}.{alias}"


def user_changes(
    desired: Mapping[str, Desired],
    destroyed: Container[str],
    consumers: Mapping[str, Iterable[PlannedConsumer]],
    edges: Edges,
    snapshot: Snapshot,
) -> dict[str, UserChange]:
    """Compare who is given outputs of its own before and after a plan, by the key of what gives them.

    `consumers`, by key, and `edges` are those after the plan. What stays as it is is left out.
    """
    there = snapshot.resources
    giving = {
        key
        for key, each in there.items()
        if key not in destroyed and _gives(each.version, present=each)
    }
    given = _takers(giving, snapshot.dependencies)
    for consumer in snapshot.consumers:
        if consumer.key in giving and OF_A_COMPONENT not in consumer.alias:
            given[consumer.key].add(_user(consumer))
    giving -= desired.keys()
    giving |= {key for key, each in desired.items() if _gives(each.version, each.present)}
    after = _takers(giving, edges)
    for key in giving & consumers.keys():
        after[key] |= {_user(each) for each in consumers[key] if OF_A_COMPONENT not in each.alias}
    return {
        key: UserChange(_names(after[key] - given[key]), _names(given[key] - after[key]))
        for key in sorted({*given, *after})
        if after[key] != given[key]
    }


def new_takers(users: Container[str], edges: Edges, snapshot: Snapshot) -> set[str]:
    """Return which resources begin to take outputs of those whose users change: they get new ones."""
    before = snapshot.dependencies
    return {
        edge[0]
        for edge, kind in edges.items()
        if edge[1] in users and kind == "output" and before.get(edge) != "output"
    }


def _gives(version: VersionFacts, present: ResourceFacts | None) -> bool:
    """Tell whether each user of a resource is given outputs of its own; no driver runs on adopted ones."""
    return USES_CONSUMERS in version.uses and not (present and present.adopted)


def _takers(keys: Container[str], edges: Edges) -> defaultdict[str, set[User]]:
    takers: defaultdict[str, set[User]] = defaultdict(set)
    for (source, target), kind in edges.items():
        if kind == "output" and target in keys:
            takers[target].add((source,))
    return takers


def _user(consumer: ConsumerFacts | PlannedConsumer) -> User:
    return consumer.application, consumer.workload, consumer.alias


def _names(users: Iterable[User]) -> tuple[str, ...]:
    return tuple(sorted(alias_name(*each) if len(each) > 1 else each[0] for each in users))
