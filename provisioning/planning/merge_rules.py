"""How the values that several consumers wish for one parameter become one value."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from provisioning.planning.references import has_placeholder
from provisioning.score.workload import Json

FLOOR = "what there is"
"""Stands for the stored floor among the consumers: it takes part, and gives way in a conflict."""


class Consumer(NamedTuple):
    """Who wishes: an alias of a workload, or the stored floor."""

    application: str
    workload: str = ""
    alias: str = ""
    priority: int = 0

    def __str__(self) -> str:
        """Name the consumer in one word."""
        if self.application == FLOOR:
            return FLOOR
        return f"{self.application}/{self.workload}.{self.alias}"

    @property
    def sentence(self) -> str:
        """Name the consumer for a person."""
        if self.application == FLOOR:
            return FLOOR
        path = f"`{self.alias}` of " if "/" in self.alias else ""
        return f"{path}workload {self.workload} of application {self.application}"


class Claim(NamedTuple):
    """One value, and who wishes it."""

    value: Json
    consumers: frozenset[Consumer]

    @property
    def first(self) -> Consumer:
        """Return one of the consumers: always the same."""
        return min(self.consumers)

    @property
    def is_floor(self) -> bool:
        """Tell whether only the stored floor has this value."""
        return all(consumer.application == FLOOR for consumer in self.consumers)


@dataclass(frozen=True, slots=True)
class MergeRule:
    """One rule of a template: see docs/sharing.md for what each does.

    `order` lists values from least to most, `key` is what tells objects of a list apart, `fields`
    are rules for what is inside, `limit` is the most items or the highest number.
    """

    rule: str = "equal"
    order: Sequence[Json] = ()
    key: str = ""
    limit: int | None = None
    fields: Mapping[str, MergeRule] = field(default_factory=dict)

    @classmethod
    def of(cls, said: str | Mapping[str, Any]) -> MergeRule:
        """Read a rule as a template has it: its name, or an object."""
        if isinstance(said, str):
            return cls(said)
        return cls(
            rule=said["rule"],
            order=tuple(said.get("order", ())),
            key=said.get("key", ""),
            limit=said.get("limit"),
            fields={name: cls.of(each) for name, each in said.get("fields", {}).items()},
        )

    @property
    def grows(self) -> bool:
        """Tell whether a wish can only extend the result, so that its end may shrink it."""
        return self.rule in ("union", "maximum", "minimum")

    def __str__(self) -> str:
        """Name the rule as the template does."""
        order = " < ".join(text(value) for value in self.order)
        return f"{self.rule} of {order}" if order else self.rule


class DisagreementError(Exception):
    """Two claims on what stands at `path` that the rule cannot make one."""

    def __init__(self, path: str, rule: MergeRule, claims: Sequence[Claim], why: str = "") -> None:
        self.path, self.rule, self.why = path, rule, why
        self.claims = sorted(claims, key=lambda claim: claim.first)[:2]
        super().__init__(path)


_ENCODER = json.JSONEncoder(sort_keys=True, ensure_ascii=False)

UNSET: Json = object()
"""The value of a parameter that a consumer leaves out, where that means the default."""


def text(value: Json) -> str:
    """Write a value as canonical JSON: Python itself takes 1 and true for equal."""
    if value is UNSET:
        return "not set"
    return _ENCODER.encode(value)


def joined(path: str, rule: MergeRule, claims: Iterable[Claim]) -> Claim:
    """Make one value of the claims on one parameter, with those who decided it.

    Raises DisagreementError. The result does not depend on the order of the claims.
    """
    return _JOINS[rule.rule](path, rule, _distinct(claims))


Index = dict[int, dict[tuple[str, bool], Json]]
"""The items of lists by what tells them apart, for lists by their `id()`."""


def satisfies(rule: MergeRule, settled: Json, wish: Json, index: Index) -> bool:
    """Tell whether the settled value gives what one consumer wished for.

    `index` is empty at first, and given again for other wishes while `settled` lives.
    """
    if rule.rule in ("maximum", "minimum"):
        have, want = _rank(rule, settled), _rank(rule, wish)
        if have is not None and want is not None:
            return have >= want if rule.rule == "maximum" else have <= want
    if rule.rule == "union":
        return _holds(rule, settled, wish, index)
    return text(settled) == text(wish)


def _distinct(claims: Iterable[Claim]) -> list[Claim]:
    """Collect who wishes each value, in the order of the values' texts."""
    claims = list(claims)
    if len(claims) == 1:
        return claims
    found: dict[str, tuple[Json, set[Consumer]]] = {}
    for claim in claims:
        found.setdefault(text(claim.value), (claim.value, set()))[1].update(claim.consumers)
    return [Claim(found[key][0], frozenset(found[key][1])) for key in sorted(found)]


def _equal(path: str, rule: MergeRule, claims: Sequence[Claim], why: str = "") -> Claim:
    live = [claim for claim in claims if not claim.is_floor] or claims
    if len(live) > 1:
        raise DisagreementError(path, rule, live, why)
    return live[0]


def _priority(path: str, rule: MergeRule, claims: Sequence[Claim]) -> Claim:
    live = [claim for claim in claims if not claim.is_floor] or claims
    highest = max(each.priority for claim in live for each in claim.consumers)
    top = [
        Claim(claim.value, frozenset(each for each in claim.consumers if each.priority == highest))
        for claim in live
    ]
    top = [claim for claim in top if claim.consumers]
    return _equal(path, rule, top, f"both have the priority {highest}")


def _extreme(path: str, rule: MergeRule, claims: Sequence[Claim]) -> Claim:
    ranked = [(_rank(rule, claim.value), claim) for claim in claims]
    known = [(rank, claim) for rank, claim in ranked if rank is not None]
    live = [claim for rank, claim in ranked if rank is None and not claim.is_floor]
    if live:
        others = [claim for claim in claims if claim is not live[0]]
        allowed = "in its order" if rule.order else "a number"
        why = f"{text(live[0].value)} is not {allowed}, so it can be compared with nothing"
        return _equal(path, rule, [live[0], *others], why)
    if not known:
        return claims[0]
    choose = max if rule.rule == "maximum" else min
    best = choose(rank for rank, _ in known)
    winners = [claim for rank, claim in known if rank == best]
    deciders: frozenset[Consumer] = frozenset().union(*(claim.consumers for claim in winners))
    if rule.limit is not None and not rule.order and best > rule.limit:
        why = f"it may be {rule.limit} at most, and is {text(winners[0].value)}"
        raise DisagreementError(path, rule, winners, why)
    return Claim(winners[0].value, deciders)


def _rank(rule: MergeRule, value: Json) -> float | None:
    """Return a value's place in the rule's order, a number itself, or None for anything else."""
    if rule.order:
        order = [text(each) for each in rule.order]
        return order.index(text(value)) if text(value) in order else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and value == value
    return value if is_number else None


def _union(path: str, rule: MergeRule, claims: Sequence[Claim]) -> Claim:
    value = _united(path, rule, claims)
    deciders: frozenset[Consumer] = frozenset().union(*(claim.consumers for claim in claims))
    if rule.limit is not None and isinstance(value, list | dict) and len(value) > rule.limit:
        largest = sorted(claims, key=lambda each: (-_size(each.value), each.first))
        why = f"it may have {rule.limit} items at most, and together they are {len(value)}"
        raise DisagreementError(path, rule, largest[:2], why)
    return Claim(value, deciders)


def _size(value: Json) -> int:
    return len(value) if isinstance(value, list | dict) else 1


def _united(path: str, rule: MergeRule, claims: Sequence[Claim]) -> Json:
    if len(claims) == 1 and not isinstance(claims[0].value, list | dict):
        return claims[0].value
    if all(isinstance(claim.value, dict) for claim in claims):
        return _united_maps(path, rule, claims)
    if all(isinstance(claim.value, list) for claim in claims):
        return _united_lists(path, rule, claims)
    return _equal(path, rule, claims, "values that are no lists or maps must be the same").value


def _united_maps(path: str, rule: MergeRule, claims: Sequence[Claim]) -> Json:
    inside: dict[str, list[Claim]] = defaultdict(list)
    for claim in claims:
        for name, value in claim.value.items():
            inside[name].append(Claim(value, claim.consumers))
    within = _within(rule)
    return {
        name: joined(f"{path}.{name}", rule.fields.get(name, within), inside[name]).value
        for name in sorted(inside)
    }


def _united_lists(path: str, rule: MergeRule, claims: Sequence[Claim]) -> Json:
    """Unite items: objects by their key, everything else as a whole; sorting comes last."""
    inside: dict[tuple[str, bool], list[Claim]] = defaultdict(list)
    for claim in claims:
        for item in claim.value:
            inside[_identity(rule, item)].append(Claim(item, claim.consumers))
    inner = _item_rule(rule)
    return [
        joined(f"{path}[{name}]", inner, inside[name, True]).value
        if by_key
        else inside[name, False][0].value
        for name, by_key in sorted(inside)
    ]


def _identity(rule: MergeRule, item: Json) -> tuple[str, bool]:
    """Return what tells an item apart, and whether that is its key and not all of it."""
    if rule.key and isinstance(item, dict) and rule.key in item:
        named = item[rule.key]
        return (named if isinstance(named, str) else text(named)), True
    return text(item), False


def _within(rule: MergeRule) -> MergeRule:
    """Return the rule for what is inside a union and has no rule of its own: the union again."""
    return MergeRule("union", key=rule.key)


def _item_rule(rule: MergeRule) -> MergeRule:
    """Return the rule for the objects that are items of a union: they have its fields."""
    return MergeRule("union", key=rule.key, fields=rule.fields)


def _holds(rule: MergeRule, settled: Json, wish: Json, index: Index) -> bool:
    if isinstance(settled, dict) and isinstance(wish, dict):
        within = _within(rule)
        return all(
            name in settled
            and satisfies(rule.fields.get(name, within), settled[name], value, index)
            for name, value in wish.items()
        )
    if isinstance(settled, list) and isinstance(wish, list):
        if id(settled) not in index:
            index[id(settled)] = {_identity(rule, item): item for item in settled}
        present = index[id(settled)]
        inner = _item_rule(rule)
        return all(
            (identity := _identity(rule, item)) in present
            and (not identity[1] or satisfies(inner, present[identity], item, index))
            for item in wish
        )
    return text(settled) == text(wish)


def _intersection(path: str, rule: MergeRule, claims: Sequence[Claim]) -> Claim:
    live = [claim for claim in claims if not claim.is_floor] or list(claims)
    deciders: frozenset[Consumer] = frozenset().union(*(claim.consumers for claim in live))
    values = [claim.value for claim in live]
    common: Json
    if all(isinstance(value, list) for value in values):
        sets = [{text(item): item for item in value} for value in values]
        shared = set(sets[0]).intersection(*sets[1:])
        common = [sets[0][each] for each in sorted(shared)]
    elif all(isinstance(value, dict) for value in values):
        pairs = [{(name, text(value[name])) for name in value} for value in values]
        kept = set(pairs[0]).intersection(*pairs[1:])
        common = {name: values[0][name] for name, _ in sorted(kept)}
    else:
        return _equal(path, rule, live, "only lists and maps can be intersected")
    if len(live) > 1 and any(has_placeholder(value) for value in values):
        raise DisagreementError(path, rule, live, "a reference can be compared with nothing")
    if not common and all(values):
        raise DisagreementError(path, rule, live, "they have nothing in common")
    return Claim(common, deciders)


_JOINS: Mapping[str, Callable[[str, MergeRule, Sequence[Claim]], Claim]] = {
    "equal": _equal,
    "priority": _priority,
    "maximum": _extreme,
    "minimum": _extreme,
    "union": _union,
    "intersection": _intersection,
}
