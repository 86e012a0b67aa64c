"""Which live resources are offered to an alias that asks by criteria, and in which order.

The scope says how far one may be: in the environment, in another one of the organisation, or in
another organisation if it was published. The nearer come first, then those of the asking team, then
the older; the key decides between equals. The one that the alias is bound to comes before all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Set
from operator import attrgetter

from provisioning.planning.addresses import environment_of
from provisioning.planning.facts import ResourceFacts, Snapshot
from provisioning.score.workload import SCOPES

TypeClass = tuple[str, str]


def scope_of(key: str, organisation: str) -> str:
    """Return the narrowest scope in which a resource is found by one who is in the organisation."""
    path = environment_of(key)
    if not path:
        return "environment"
    return "organisation" if path.partition("/")[0] == organisation else "global"


class Candidates:
    """Offer the resources of one snapshot, and those that its plan makes."""

    def __init__(self, snapshot: Snapshot, used: Set[str]) -> None:
        self._snapshot = snapshot
        self._used = used
        self._by_type: dict[TypeClass, list[ResourceFacts]] = defaultdict(list)
        self._ranked: set[TypeClass] = set()
        for each in snapshot.resources.values():
            if each.slot is not None:
                self._by_type[each.type, each.class_].append(each)

    def offered(self, type_class: TypeClass, scope: str, bound: str) -> list[ResourceFacts]:
        """Return those of a type and class within a scope, the best first; the bound one leads."""
        candidates = self._by_type[type_class]
        if type_class not in self._ranked:
            self._rank(candidates)
            self._ranked.add(type_class)
        if self._snapshot.elsewhere:
            candidates = [each for each in candidates if self._is_within(each, scope)]
        if bound not in self._used:
            return candidates
        return sorted(candidates, key=lambda each: each.key != bound)

    def free_ordinal(self, type_class: TypeClass, slot: str) -> int:
        """Return the lowest ordinal of a slot for a type and class that no resource has."""
        slots = [each.slot for each in self._by_type[type_class]]
        used = {each.ordinal for each in slots if each and each.slot == slot}
        return next(number for number in range(len(used) + 1) if number not in used)

    def add(self, made: ResourceFacts) -> None:
        """Offer what the plan makes to those who come later."""
        type_class = (made.type, made.class_)
        self._by_type[type_class].append(made)
        self._ranked.discard(type_class)

    def _rank(self, candidates: list[ResourceFacts]) -> None:
        here, team = self._snapshot, self._snapshot.team
        candidates.sort(key=attrgetter("key"))
        candidates.sort(key=attrgetter("created_at"))  # keeps the order of equals
        others = [each for each in candidates if each.owner_team != team]
        candidates[:] = [each for each in candidates if each.owner_team == team] + others
        if here.elsewhere:
            candidates.sort(key=lambda each: SCOPES.index(scope_of(each.key, here.organisation)))

    def _is_within(self, candidate: ResourceFacts, scope: str) -> bool:
        found_in = scope_of(candidate.key, self._snapshot.organisation)
        if SCOPES.index(found_in) > SCOPES.index(scope):
            return False
        return found_in != "global" or candidate.published or candidate.key in self._used
