"""Several consumers' wishes for one resource become one desired input, or a named conflict.

Claims keep who wishes what, so combining them is commutative, associative and idempotent; `settle`
alone applies the template's rules. A consumer that names no params agrees with anything. A template
without rules lets all others ask for exactly the same; one with rules takes a parameter that a
consumer leaves out as no wish.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from provisioning.exceptions import ConductorError
from provisioning.planning.merge_rules import (
    FLOOR,
    UNSET,
    Claim,
    Consumer,
    DisagreementError,
    Index,
    MergeRule,
    joined,
    satisfies,
    text,
)
from provisioning.score.workload import Json

EQUAL = MergeRule()
MOST_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Wish:
    """What one consumer asks for; `params` is None if it names none, `priority` if it has none."""

    application: str
    workload: str
    alias: str
    params: Mapping[str, Json] | None
    priority: int | None = None

    @property
    def consumer(self) -> Consumer:
        """Return who wishes."""
        return Consumer(self.application, self.workload, self.alias, self.priority or 0)


@dataclass(frozen=True, slots=True)
class Claims:
    """Who names params at all, and by parameter and value who wishes it."""

    voiced: frozenset[Consumer] = frozenset()
    by_param: Mapping[str, Mapping[str, Claim]] = field(default_factory=dict)

    def __or__(self, other: Claims) -> Claims:
        """Combine the claims of both."""
        return combine((self, other))


@dataclass(frozen=True, slots=True)
class Settled:
    """The one input, and by parameter who decided it."""

    params: Mapping[str, Json]
    decided_by: Mapping[str, tuple[Consumer, ...]]


@dataclass(frozen=True, slots=True)
class Conflict:
    """Claims on one parameter that its rule cannot make one, or that go beyond its limit."""

    param: str
    rule: MergeRule
    claims: tuple[Claim, ...]
    why: str = ""

    def __str__(self) -> str:
        """Name the parameter, the consumers, their values and the rule."""
        sides = " and ".join(
            f"{_shown(claim.value)} for {claim.first.sentence}" for claim in self.claims
        )
        why = f", {self.why}" if self.why else ""
        return f"the parameter `{self.param}` is {sides}; the rule is {self.rule}{why}"

    @property
    def hint(self) -> str:
        """Say what either side could do."""
        own = "use another name for a resource of your own"
        if "at most" in self.why:
            return f"ask for less, or {own}"
        if self.rule.rule == "priority":
            return f"ask for the same value, let one of the two have a higher `priority`, or {own}"
        if self.rule.rule == "intersection":
            return f"ask for something that the other asks for too, or {own}"
        if self.rule.order:
            return f"ask for one of {', '.join(text(each) for each in self.rule.order)}, or {own}"
        return f"ask for the same value, name no params to take what there is, or {own}"


class MergeConflictError(ConductorError):
    """Refuse to settle; `conflicts` has one for every parameter that cannot be settled."""

    def __init__(self, conflicts: Iterable[Conflict]) -> None:
        self.conflicts = tuple(conflicts)
        super().__init__("\n".join(f"{conflict}." for conflict in self.conflicts))


@dataclass(frozen=True, slots=True)
class Unmet:
    """A wish that the settled input does not give: `asked` for, but `given` (None: nothing)."""

    consumer: Consumer
    param: str
    asked: Json
    given: Json


def rules_of(said: Mapping[str, str | Mapping[str, Json]]) -> dict[str, MergeRule]:
    """Read the rules of a template version, by parameter."""
    return {param: MergeRule.of(rule) for param, rule in said.items()}


def claims_of(wish: Wish) -> Claims:
    """Return what one consumer claims."""
    if wish.params is None:
        return Claims()
    consumers = frozenset([wish.consumer])
    return Claims(
        consumers,
        {param: {text(value): Claim(value, consumers)} for param, value in wish.params.items()},
    )


def combine(claims: Iterable[Claims]) -> Claims:
    """Put claims together, in whatever order and however often each is given."""
    voiced: set[Consumer] = set()
    found: dict[str, dict[str, tuple[Json, set[Consumer]]]] = defaultdict(dict)
    for each in claims:
        voiced |= each.voiced
        for param, values in each.by_param.items():
            for key, claim in values.items():
                found[param].setdefault(key, (claim.value, set()))[1].update(claim.consumers)
    return Claims(
        frozenset(voiced),
        {
            param: {key: Claim(values[key][0], frozenset(values[key][1])) for key in sorted(values)}
            for param, values in sorted(found.items())
        },
    )


def settle(
    claims: Claims,
    rules: Mapping[str, MergeRule],
    floor: Mapping[str, Json] | None = None,
) -> Settled:
    """Make one input of all claims.

    `floor` has the params below which those that can only grow do not fall. Raises
    MergeConflictError with every parameter on which the claims conflict or exceed a limit.
    """
    kept = {param: value for param, value in (floor or {}).items() if _grows(rules, param)}
    params: dict[str, Json] = {}
    decided: dict[str, tuple[Consumer, ...]] = {}
    conflicts = []
    for param in sorted({*claims.by_param, *kept}):
        rule = rules.get(param, EQUAL)
        on_it = list(claims.by_param.get(param, {}).values())
        if not rules:
            on_it += _left_out(claims, on_it)
        if param in kept:
            on_it.append(Claim(kept[param], frozenset([Consumer(FLOOR)])))
        try:
            result = joined(param, rule, on_it)
        except DisagreementError as error:
            conflicts.append(Conflict(error.path, error.rule, tuple(error.claims), error.why))
            continue
        params[param] = result.value
        decided[param] = tuple(sorted(result.consumers))
    if conflicts:
        raise MergeConflictError(conflicts)
    return Settled(params, decided)


def unmet(
    claims: Claims, rules: Mapping[str, MergeRule], params: Mapping[str, Json]
) -> Iterator[Unmet]:
    """Compare every wish with the input there is; the order is that of params and consumers."""
    index: Index = {}
    for param, values in sorted(claims.by_param.items()):
        rule = rules.get(param, EQUAL)
        found = [
            Unmet(consumer, param, claim.value, params.get(param))
            for claim in values.values()
            if param not in params or not satisfies(rule, params[param], claim.value, index)
            for consumer in claim.consumers
        ]
        yield from sorted(found, key=lambda each: each.consumer)


def _grows(rules: Mapping[str, MergeRule], param: str) -> bool:
    return param in rules and rules[param].grows


def _left_out(claims: Claims, on_it: Iterable[Claim]) -> list[Claim]:
    named = frozenset().union(*(claim.consumers for claim in on_it))
    return [Claim(UNSET, claims.voiced - named)] if claims.voiced - named else []


def _shown(value: Json) -> str:
    shown = text(value)
    return shown if len(shown) <= MOST_SHOWN else f"{shown[: MOST_SHOWN - 1]}…"
