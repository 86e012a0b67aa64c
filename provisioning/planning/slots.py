"""Which live resource serves an alias that asks by criteria, and why each other one does not.

Candidates are the live resources that were made for sharing by criteria and have the wanted type
and class, in the order of `planning.candidates`. The first that is not refused is taken. If all are,
a new one is made in the slot: the scope's owner, type, class and wanted values, as a digest. Only
the scope `global` makes none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from provisioning.exceptions import ConductorError
from provisioning.planning.addresses import NOWHERE, rewritten
from provisioning.planning.candidates import Candidates
from provisioning.planning.conditions import Condition, read_condition
from provisioning.planning.criteria import (
    Place,
    Wanted,
    criteria,
    difference,
    json_text,
    matched_values,
    shown,
    slot_key,
    slot_of,
)
from provisioning.planning.facts import ConsumerFacts, ResourceFacts, SlotFacts, Snapshot
from provisioning.planning.matching import Matcher
from provisioning.planning.plan import ConsideredResource, PlannedSlot
from provisioning.planning.questions import CLOSED
from provisioning.score.workload import Json, Matching, ResourceDeclaration, Workload

MOST_LISTED = 20
FITS = ""
DELETING, SHUT, FULL = "being destroyed", "closed to other teams", "full"
NO_RULE, BROKEN_RULE = "no rule to share by", "the rule does not hold"
SENTENCES = {
    FITS: "it fits, but another is ranked before it",
    DELETING: "it is being destroyed",
    SHUT: "its owner has closed it to other teams",
}
TAKEN = "the best-ranked that fits"
STICKS = "bound to it already, and asks for the same as before"
LAST = "~"
"""When something of this plan was created: after everything there is."""


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


def slot_after(present: ResourceFacts | None, found: Iterable[Found | None]) -> PlannedSlot | None:
    """Return the slot of a resource once the aliases of a plan that found it have joined."""
    slots = [each.slot for each in found if each is not None]
    if not slots:
        slot = present.slot if present else None
        return _planned(slot) if slot else None
    limits = [each.max_consumers for each in slots if each.max_consumers is not None]
    return replace(slots[0], max_consumers=min(limits, default=None))


class NothingFitsError(ConductorError):
    """Refuse to go on without a resource where none may be made; `hint` says what to do."""

    def __init__(self, message: str, hint: str) -> None:
        self.hint = hint
        super().__init__(message)


class Slots:
    """Bind the aliases of one plan to slots, one after the other, counting who uses what.

    Aliases that the plan covers hold their present places until it is their turn.
    """

    def __init__(self, workloads: Sequence[Workload], snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._rules: dict[str, Condition] = {}
        self._templates = Matcher(snapshot)
        self._most: dict[str, int | None] = {}
        own = [each for each in snapshot.consumers if each.application == snapshot.application]
        self._bound = {_place(each): each for each in own}
        self._used_before = {each.key for each in own}
        self._candidates = Candidates(snapshot, self._used_before)
        self._users = Counter([each.key for each in snapshot.consumers])
        self._users.subtract(_leaving(workloads, own))

    def bind(
        self,
        workload: Workload,
        declaration: ResourceDeclaration,
        params: Mapping[str, Json] | None,
    ) -> Found:
        """Find the resource for an alias whose params are bound, or a slot for a new one.

        Raises NothingFitsError if there is none and none may be made.
        """
        wanted = self._wanted(workload, declaration, params or {})
        bound = self._bound.get(wanted.place)
        if bound is not None and _is_matched(bound):
            self._users[bound.key] -= 1
            if self._sticks(bound, wanted, params):
                return self._stay(bound.key, wanted)
        type_class, scope = (declaration.type, declaration.class_), wanted.matching.scope
        ranked = self._candidates.offered(type_class, scope, bound.key if bound else "")
        verdicts = [self._verdict(each, wanted) for each in ranked]
        taken = verdicts.index(FITS) if FITS in verdicts else None
        if taken is None and scope == "global":
            raise _nothing_fits(wanted, verdicts)
        explained = self._explained(ranked, verdicts, taken, wanted)
        slot = self._make(wanted) if taken is None else self._join(ranked[taken], wanted)
        key = slot_key(slot.slot, slot.ordinal) if taken is None else ranked[taken].key
        self._users[key] += 1
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
            "organisation": here.organisation,
            "params": params,
            "tags": here.tags,
            "team": here.team,
        }
        return Wanted(
            place=(here.application, workload.name, declaration.alias),
            declaration=declaration,
            params=params,
            slot=self._slot(matching.scope, declaration, params),
            values=matched_values(matching, params),
            facts=facts,
            matching=matching,
        )

    def _slot(
        self, scope: str, declaration: ResourceDeclaration, params: Mapping[str, Json]
    ) -> str:
        """Return the slot that the same wish has for everybody whom the scope covers."""
        here = self._snapshot
        if scope == "environment":
            return slot_of((here.organisation, here.environment), declaration, params)
        everywhere = rewritten(params, here.path, NOWHERE)
        return slot_of((here.organisation,), declaration, everywhere)

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
            and json_text(bound.params) == json_text(params)
        )

    def _stay(self, key: str, wanted: Wanted) -> Found:
        resource = self._snapshot.resources[key]
        slot = self._join(resource, wanted)
        self._users[key] += 1
        said = ConsideredResource(key, resource.name, resource.owner_team, True, STICKS)
        return Found(key, slot, criteria(wanted.matching), (said,))

    def _join(self, resource: ResourceFacts, wanted: Wanted) -> PlannedSlot:
        """Lower how many may use a resource to what one more consumer of it asks for."""
        slot = resource.slot
        assert slot is not None  # noqa: S101 - only such resources are candidates
        most = self._limit(resource.key, slot, wanted)
        self._most[resource.key] = most
        return replace(_planned(slot), max_consumers=most)

    def _make(self, wanted: Wanted) -> PlannedSlot:
        """Open the slot's next ordinal; those that come later may join what is made in it."""
        matching, declaration = wanted.matching, wanted.declaration
        type_class = (declaration.type, declaration.class_)
        ordinal = self._candidates.free_ordinal(type_class, wanted.slot)
        conditional = matching.sharing_policy == "conditional"
        slot = SlotFacts(wanted.slot, ordinal, matching.max_consumers, conditional)
        key = slot_key(wanted.slot, ordinal)
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
            self._candidates.add(made)
        return PlannedSlot(slot.slot, ordinal, slot.max_consumers, conditional)

    def _verdict(self, candidate: ResourceFacts, wanted: Wanted) -> str:
        """Say in a few words why a candidate is not taken, or FITS."""
        slot = candidate.slot
        assert slot is not None  # noqa: S101 - only such resources are candidates
        if candidate.deleting:
            return DELETING
        if candidate.sharing_policy == CLOSED and not self._may_use(candidate):
            return SHUT
        if slot.slot != wanted.slot and (name := difference(wanted, candidate.params)):
            return f"another `{name}`"
        if slot.conditional or wanted.matching.sharing_policy == "conditional":
            if not candidate.version.share_when:
                return NO_RULE
            if not self._rule_holds(candidate, wanted):
                return BROKEN_RULE
        if slot.max_consumers is None and wanted.matching.max_consumers is None and not self._most:
            return FITS
        most = self._limit(candidate.key, slot, wanted)
        return FITS if most is None or self._users[candidate.key] < most else FULL

    def _sentence(self, candidate: ResourceFacts, verdict: str, wanted: Wanted) -> str:
        """Say a verdict with all that belongs to it."""
        slot, version = candidate.slot, candidate.version
        assert slot is not None  # noqa: S101 - only such resources are candidates
        if verdict == FULL:
            most = self._limit(candidate.key, slot, wanted)
            return f"it is full: it has {self._users[candidate.key]} of {most} consumers"
        if verdict == NO_RULE:
            return f"its template {version.template} has no `share_when` to share it by"
        if verdict == BROKEN_RULE:
            rule = version.share_when
            return f"the rule of its template {version.template} does not hold: {rule}"
        if verdict in SENTENCES:
            return SENTENCES[verdict]
        name = difference(wanted, candidate.params)
        there, here = shown(candidate.params, name), shown(wanted.values, name)
        return f"its `{name}` is {there}, and {here} is wanted"

    def _may_use(self, candidate: ResourceFacts) -> bool:
        own = candidate.owner_team == self._snapshot.team
        return own or candidate.granted or candidate.key in self._used_before

    def _rule_holds(self, candidate: ResourceFacts, wanted: Wanted) -> bool:
        text = candidate.version.share_when
        if text not in self._rules:
            self._rules[text] = read_condition(text)
        resource = {
            **candidate.context,
            "params": candidate.params,
            "team": candidate.owner_team,
        }
        return self._rules[text].holds(consumer=wanted.facts, resource=resource)

    def _limit(self, key: str, slot: SlotFacts, wanted: Wanted) -> int | None:
        """Return how many may use a resource; nobody's wish but one's own counts if it is free."""
        own = wanted.matching.max_consumers
        most = self._most.get(key, slot.max_consumers)
        if most is None or not self._users[key]:
            return own
        return most if own is None else min(most, own)

    def _explained(
        self,
        ranked: Sequence[ResourceFacts],
        verdicts: Sequence[str],
        taken: int | None,
        wanted: Wanted,
    ) -> tuple[tuple[ConsideredResource, ...], dict[str, int]]:
        """Tell of the best-ranked one by one, always of the taken one, and count the others."""
        told = list(range(min(len(ranked), MOST_LISTED)))
        if taken is not None and taken not in told:
            told[-1] = taken
        listed = []
        for at in told:
            each = ranked[at]
            reason = TAKEN if at == taken else self._sentence(each, verdicts[at], wanted)
            listed.append(
                ConsideredResource(each.key, each.name, each.owner_team, at == taken, reason)
            )
        counted = Counter(verdicts)
        counted.subtract(verdicts[at] for at in told)
        left_out = {SENTENCES[FITS] if each == FITS else each: counted[each] for each in counted}
        return tuple(listed), {each: left_out[each] for each in sorted(left_out) if left_out[each]}


def _nothing_fits(wanted: Wanted, verdicts: Sequence[str]) -> NothingFitsError:
    declaration = wanted.declaration
    counted = Counter(verdicts)
    why = ", ".join(f"{counted[each]} {each}" for each in sorted(counted))
    return NothingFitsError(
        f"`{declaration.alias}` is matched in the scope global, which makes nothing, and "
        + (
            f"nothing fits: {why}."
            if why
            else f"there is no {declaration.type}.{declaration.class_} to be found."
        ),
        "ask platform engineers to publish one (manage.py share publish), or write "
        "`scope: organisation` to have one made",
    )


def _planned(slot: SlotFacts) -> PlannedSlot:
    return PlannedSlot(slot.slot, slot.ordinal, slot.max_consumers, slot.conditional)


def _leaving(workloads: Sequence[Workload], own: Iterable[ConsumerFacts]) -> Iterator[str]:
    """Walk the keys that aliases of the given workloads leave without being matched any more."""
    matched = {
        workload.name: {
            alias
            for alias, declaration in workload.resources.items()
            if declaration.binding.mode == "match"
        }
        for workload in workloads
    }
    for each in own:
        if each.workload in matched and not (
            each.alias in matched[each.workload] and _is_matched(each)
        ):
            yield each.key


def _is_matched(consumer: ConsumerFacts) -> bool:
    return consumer.mode == "match"


def _place(consumer: ConsumerFacts) -> Place:
    return consumer.application, consumer.workload, consumer.alias
