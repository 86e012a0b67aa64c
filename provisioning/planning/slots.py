"""Which live resource serves an alias that asks by criteria, and why each other one does not.

Candidates are the live resources of the environment that were made for sharing by criteria and have
the wanted type and class. They are ranked: the one that the alias is bound to, then those of its
own team, then the oldest; the key decides between equals. The first that is not refused is taken.
If all are, a new one is made in the slot: the scope, type, class and wanted values, as a digest.
"""

from __future__ import annotations

import hashlib
import json
from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from provisioning.planning.conditions import Condition, read_condition
from provisioning.planning.facts import ConsumerFacts, ResourceFacts, SlotFacts, Snapshot
from provisioning.planning.matching import Matcher
from provisioning.planning.plan import ConsideredResource, PlannedSlot
from provisioning.planning.questions import CLOSED, may_use
from provisioning.score.workload import Json, Matching, ResourceDeclaration, Workload

MOST_LISTED = 20
SLOT_LENGTH = 40
STICKS = "bound to it already, and asks for the same as before"
OUTRANKED = "it fits, but another is ranked before it"
LAST = "~"
"""When something of this plan was created: after everything there is."""
Place = tuple[str, str, str]
"""(application, workload, alias) of a consumer."""


@dataclass(frozen=True, slots=True)
class Found:
    """The key an alias is bound to, the slot of its resource, and how that came about."""

    key: str
    slot: PlannedSlot
    matching: Mapping[str, Json]
    considered: tuple[ConsideredResource, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)

    def explanation(self) -> dict[str, Any]:
        """Return what a planned binding tells of it."""
        return {
            "matching": self.matching,
            "considered": self.considered,
            "left_out": self.left_out,
        }


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a candidate is not taken: its `kind`, by which it is counted, and the whole sentence."""

    kind: str
    sentence: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an alias asks for; `values` are the bound params it must match on."""

    place: Place
    declaration: ResourceDeclaration
    params: Mapping[str, Json]
    slot: str
    values: Mapping[str, Json]
    facts: Mapping[str, Any]

    @property
    def matching(self) -> Matching:
        """Return the criteria."""
        return self.declaration.binding.matching or Matching()


def criteria(matching: Matching) -> dict[str, Json]:
    """Return criteria as JSON values, as consumers keep them."""
    kept = asdict(matching)
    return kept | {"match_on": None if matching.match_on is None else list(matching.match_on)}


def matched_values(matching: Matching, params: Mapping[str, Json]) -> dict[str, Json]:
    """Return the params that must be equal; one that is not set must be unset elsewhere too."""
    names = params if matching.match_on is None else matching.match_on
    return {name: params.get(name) for name in sorted(names)}


def slot_of(
    owner: Sequence[str], declaration: ResourceDeclaration, params: Mapping[str, Json]
) -> str:
    """Return the slot: a sha256 over who the scope belongs to, type, class and matched values."""
    matching = declaration.binding.matching or Matching()
    names = None if matching.match_on is None else list(matching.match_on)
    values = matched_values(matching, params)
    told = [*owner, declaration.type, declaration.class_, names, values]
    return hashlib.sha256(_text(told).encode()).hexdigest()[:SLOT_LENGTH]


def slot_key(slot: str, ordinal: int) -> str:
    """Return the key of a resource in a slot."""
    return f"slot/{slot}/{ordinal}"


def slot_after(present: ResourceFacts | None, found: Iterable[Found | None]) -> PlannedSlot | None:
    """Return the slot of a resource once the aliases of a plan that found it have joined."""
    slots = [each.slot for each in found if each is not None]
    if not slots:
        slot = present.slot if present else None
        return _planned(slot) if slot else None
    limits = [each.max_consumers for each in slots if each.max_consumers is not None]
    return replace(slots[0], max_consumers=min(limits, default=None))


class Slots:
    """Bind the aliases of one plan to slots, one after the other, counting who uses what.

    Aliases that the plan covers hold their present places until it is their turn.
    """

    def __init__(self, workloads: Sequence[Workload], snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._resources: dict[tuple[str, str], list[ResourceFacts]] = defaultdict(list)
        self._ordinals: dict[str, set[int]] = defaultdict(set)
        self._most: dict[str, int | None] = {}
        self._rules: dict[str, Condition] = {}
        self._templates = Matcher(snapshot)
        for each in snapshot.resources.values():
            if each.slot is not None:
                self._resources[each.type, each.class_].append(each)
                self._ordinals[each.slot.slot].add(each.slot.ordinal)
                self._most[each.key] = each.slot.max_consumers
        for ranked in self._resources.values():
            ranked.sort(key=self._rank)
        self._bound = {_place(each): each for each in snapshot.consumers}
        self._users: dict[str, set[Place]] = defaultdict(set)
        for consumer in _staying(workloads, snapshot):
            self._users[consumer.key].add(_place(consumer))

    def bind(
        self,
        workload: Workload,
        declaration: ResourceDeclaration,
        params: Mapping[str, Json] | None,
    ) -> Found:
        """Find the resource for an alias whose params are bound, or a slot for a new one."""
        wanted = self._wanted(workload, declaration, params or {})
        bound = self._bound.get(wanted.place)
        if bound is not None:
            self._users[bound.key].discard(wanted.place)
            if self._sticks(bound, wanted, params):
                return self._stay(bound.key, wanted)
        ranked = self._ranked(wanted, bound.key if bound else "")
        refusals = [self._refusal(each, wanted) for each in ranked]
        taken = refusals.index(None) if None in refusals else None
        explained = _explained(ranked, refusals, taken)
        if taken is None:
            slot = self._make(wanted)
            key = slot_key(slot.slot, slot.ordinal)
        else:
            key = ranked[taken].key
            self._most[key] = self._limit(key, wanted)
            slot = _slot(ranked[taken], self._most[key])
        self._users[key].add(wanted.place)
        return Found(key, slot, criteria(wanted.matching), *explained)

    def _wanted(
        self, workload: Workload, declaration: ResourceDeclaration, params: Mapping[str, Json]
    ) -> Wanted:
        here = self._snapshot
        matching = declaration.binding.matching or Matching()
        facts = {
            "application": here.application,
            "environment": here.environment,
            "environment_kind": here.environment_kind,
            "metadata": declaration.metadata,
            "params": params,
            "tags": here.tags,
            "team": here.team,
        }
        return Wanted(
            place=(here.application, workload.name, declaration.alias),
            declaration=declaration,
            params=params,
            slot=slot_of((here.organisation, here.environment), declaration, params),
            values=matched_values(matching, params),
            facts=facts,
        )

    def _rank(self, resource: ResourceFacts) -> tuple[bool, str, str]:
        return (resource.owner_team != self._snapshot.team, resource.created_at, resource.key)

    def _sticks(
        self, bound: ConsumerFacts, wanted: Wanted, params: Mapping[str, Json] | None
    ) -> bool:
        resource = self._snapshot.resources.get(bound.key)
        return (
            resource is not None
            and not resource.deleting
            and resource.slot is not None
            and (resource.type, resource.class_)
            == (wanted.declaration.type, wanted.declaration.class_)
            and bound.mode == "match"
            and bound.matching == criteria(wanted.matching)
            and _text(bound.params) == _text(params)
        )

    def _stay(self, key: str, wanted: Wanted) -> Found:
        resource = self._snapshot.resources[key]
        self._users[key].add(wanted.place)
        said = ConsideredResource(key, resource.name, resource.owner_team, True, STICKS)
        return Found(key, _slot(resource, self._most[key]), criteria(wanted.matching), (said,))

    def _ranked(self, wanted: Wanted, present: str) -> list[ResourceFacts]:
        ranked = self._resources[wanted.declaration.type, wanted.declaration.class_]
        bound = [each for each in ranked if each.key == present]
        return bound + [each for each in ranked if each.key != present] if bound else ranked

    def _make(self, wanted: Wanted) -> PlannedSlot:
        """Open the slot's next ordinal; those that come later may join what is made in it."""
        used = self._ordinals[wanted.slot]
        ordinal = next(number for number in range(len(used) + 1) if number not in used)
        used.add(ordinal)
        matching, declaration = wanted.matching, wanted.declaration
        conditional = matching.sharing_policy == "conditional"
        slot = SlotFacts(wanted.slot, ordinal, matching.max_consumers, conditional)
        key = slot_key(wanted.slot, ordinal)
        self._most[key] = matching.max_consumers
        type_class = (declaration.type, declaration.class_)
        if version := self._templates.match(*type_class, declaration.id or "").version:
            made = ResourceFacts(
                id="",
                key=key,
                name="made by this plan",
                uid=declaration.uid,
                type=declaration.type,
                class_=declaration.class_,
                version=version,
                params=wanted.params,
                context=wanted.facts,
                spec_digest="",
                owner_team=self._snapshot.team,
                created_by=self._snapshot.application,
                clean=False,
                slot=slot,
                created_at=LAST,
            )
            insort(self._resources[type_class], made, key=self._rank)
        return PlannedSlot(slot.slot, ordinal, slot.max_consumers, conditional)

    def _refusal(self, candidate: ResourceFacts, wanted: Wanted) -> Refusal | None:
        if candidate.deleting:
            return Refusal("being destroyed", lambda: "it is being destroyed")
        others = candidate.owner_team != self._snapshot.team
        if others and candidate.sharing_policy == CLOSED and not may_use(candidate, self._snapshot):
            return Refusal(
                "closed to other teams", lambda: "its owner has closed it to other teams"
            )
        slot = candidate.slot
        assert slot is not None  # noqa: S101 - only such resources are candidates
        if slot.slot != wanted.slot and (name := _difference(wanted, candidate.params)):
            return Refusal(
                f"another `{name}`",
                lambda: (
                    f"its `{name}` is {_shown(candidate.params, name)}, and "
                    f"{_shown(wanted.values, name)} is wanted"
                ),
            )
        if slot.conditional or wanted.matching.sharing_policy == "conditional":
            refusal = self._rule_refusal(candidate, wanted)
            if refusal is not None:
                return refusal
        limit, users = self._limit(candidate.key, wanted), len(self._users[candidate.key])
        if limit is not None and users >= limit:
            return Refusal("full", lambda: f"it is full: it has {users} of {limit} consumers")
        return None

    def _rule_refusal(self, candidate: ResourceFacts, wanted: Wanted) -> Refusal | None:
        template, rule = candidate.version.template, candidate.version.share_when
        if not rule:
            return Refusal(
                "no rule to share by",
                lambda: f"its template {template} has no `share_when` to share it by",
            )
        resource = {
            **candidate.context,
            "params": candidate.params,
            "team": candidate.owner_team,
        }
        if self._rule(rule).holds(consumer=wanted.facts, resource=resource):
            return None
        return Refusal(
            "the rule does not hold",
            lambda: f"the rule of its template {template} does not hold: {rule}",
        )

    def _rule(self, text: str) -> Condition:
        if text not in self._rules:
            self._rules[text] = read_condition(text)
        return self._rules[text]

    def _limit(self, key: str, wanted: Wanted) -> int | None:
        """Return how many may use a resource; nobody's wish but one's own counts if it is free."""
        own = wanted.matching.max_consumers
        if not self._users[key]:
            return own
        limits = [most for most in (self._most[key], own) if most is not None]
        return min(limits, default=None)


def _explained(
    ranked: Sequence[ResourceFacts], refusals: Sequence[Refusal | None], taken: int | None
) -> tuple[tuple[ConsideredResource, ...], dict[str, int]]:
    """Tell of the best-ranked one by one, always of the one that is taken, and count the others."""
    told = list(range(min(len(ranked), MOST_LISTED)))
    if taken is not None and taken not in told:
        told[-1] = taken
    listed = tuple(_considered(ranked[at], refusals[at], at == taken) for at in told)
    counted: Counter[str] = Counter()
    for at in set(range(len(ranked))).difference(told):
        refusal = refusals[at]
        counted[OUTRANKED if refusal is None else refusal.kind] += 1
    return listed, dict(sorted(counted.items()))


def _considered(
    candidate: ResourceFacts, refusal: Refusal | None, chosen: bool
) -> ConsideredResource:
    if chosen:
        reason = "the best-ranked that fits"
    else:
        reason = OUTRANKED if refusal is None else refusal.sentence()
    return ConsideredResource(candidate.key, candidate.name, candidate.owner_team, chosen, reason)


def _difference(wanted: Wanted, params: Mapping[str, Json]) -> str:
    """Return the first matched param whose value is another one, or ""."""
    names: Iterable[str] = wanted.values
    if wanted.matching.match_on is None and params.keys() != wanted.values.keys():
        names = sorted({*wanted.values, *params})
    for name in names:
        one, other = wanted.values.get(name), params.get(name)
        # Compared as JSON too, because Python takes 1 and true for equal.
        if one != other or _text(one) != _text(other):
            return name
    return ""


def _planned(slot: SlotFacts) -> PlannedSlot:
    return PlannedSlot(slot.slot, slot.ordinal, slot.max_consumers, slot.conditional)


def _slot(resource: ResourceFacts, most: int | None) -> PlannedSlot:
    slot = resource.slot
    assert slot is not None  # noqa: S101 - only such resources are candidates
    return replace(_planned(slot), max_consumers=most)


def _staying(workloads: Sequence[Workload], snapshot: Snapshot) -> Iterable[ConsumerFacts]:
    """Walk the consumers but for the aliases that the given workloads do not match any more."""
    matched = {
        workload.name: {
            alias
            for alias, declaration in workload.resources.items()
            if declaration.binding.mode == "match"
        }
        for workload in workloads
    }
    for each in snapshot.consumers:
        own = each.application == snapshot.application
        if not own or each.alias in matched.get(each.workload, (each.alias,)):
            yield each


def _place(consumer: ConsumerFacts) -> Place:
    return consumer.application, consumer.workload, consumer.alias


def _shown(params: Mapping[str, Json], name: str) -> str:
    return _text(params[name]) if name in params else "not set"


def _text(value: Json) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
