"""What the consumers of one resource get together: the settled input, and what it leaves open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from provisioning.planning.addresses import environment_of, in_own_terms, rewritten
from provisioning.planning.facts import (
    ConsumerFacts,
    PoolFacts,
    ResourceFacts,
    Snapshot,
    VersionFacts,
)
from provisioning.planning.merge_rules import text
from provisioning.planning.merging import (
    Claims,
    MergeConflictError,
    Settled,
    Wish,
    claims_of,
    combine,
    rules_of,
    settle,
    unmet,
)
from provisioning.planning.plan import Shrink, UnmetWish
from provisioning.planning.requirements import Requirement
from provisioning.score.workload import Problem

TAGS = "tags"


@dataclass(frozen=True, slots=True)
class Settlement:
    """The input of one resource, who decided it, whose wish it does not meet, what would shrink."""

    params: Mapping[str, Any]
    decided_by: Mapping[str, tuple[str, ...]]
    unmet: tuple[UnmetWish, ...] = ()
    shrinks: tuple[Shrink, ...] = ()


def settlement(
    asked: Sequence[Requirement],
    others: Sequence[ConsumerFacts],
    version: VersionFacts,
    present: ResourceFacts | None,
    snapshot: Snapshot,
    *,
    shrink: bool = False,
) -> Settlement:
    """Settle what the given requirements and the other consumers ask of one resource.

    What nobody asks for is as the environment's defaults say. `shrink` lets happen what the template
    only proposes. All is settled in the resource's own terms, so that everybody gets the same, in
    the same order. Raises MergeConflictError.
    """
    type_ = asked[0].declaration.type if asked else present.type if present else ""
    key = asked[0].key if asked else present.key if present else ""
    defaults = defaults_of(type_, version.params_schema, snapshot.around(key).defaults)
    here, there = snapshot.path, environment_of(key) or snapshot.path
    if present is not None and there != here:
        params, floor = (rewritten(each, here, there) for each in (present.params, present.floor))
        present = replace(present, params=params, floor=floor)
    settled = _asked_for(asked, others, version, present, snapshot, defaults, shrink=shrink)
    settled = _with_defaults(settled, defaults, environment_of(key) or snapshot.environment)
    if there == here:
        return settled
    return replace(settled, params=rewritten(settled.params, there, here))


def pool_settlement(pool: PoolFacts, snapshot: Snapshot) -> Settlement:
    """Settle the input of a new member of a pool: what the pool says, and the defaults for the rest."""
    defaults = defaults_of(pool.type, pool.version.params_schema, snapshot.defaults)
    return _with_defaults(Settlement(pool.params, {}), defaults, snapshot.environment)


def defaults_of(
    type_: str, schema: Mapping[str, Any], defaults: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return an environment's defaults for the params that a template has; the type's own win."""
    said = {**defaults.get("*", {}), **defaults.get(type_, {})}
    properties = schema.get("properties", {})
    return {name: value for name, value in sorted(said.items()) if name in properties}


def params_with_defaults(
    params: Mapping[str, Any], type_: str, version: VersionFacts, snapshot: Snapshot
) -> Mapping[str, Any]:
    """Return params as they are once the environment's defaults have filled in what is left out."""
    settled = Settlement(params, {})
    defaults = defaults_of(type_, version.params_schema, snapshot.defaults)
    return _with_defaults(settled, defaults, snapshot.environment).params


def _with_defaults(
    settled: Settlement, defaults: Mapping[str, Any], environment: str
) -> Settlement:
    """Fill in what nobody asks for; of two maps of tags the consumers' entries win."""
    more = {name: value for name, value in defaults.items() if name not in settled.params}
    tags, given = defaults.get(TAGS), settled.params.get(TAGS)
    if isinstance(tags, Mapping) and isinstance(given, Mapping):
        more[TAGS] = {**tags, **given}
    if not more:
        return settled
    who = f"environment {environment}"
    by_whom = {name: (*settled.decided_by.get(name, ()), who) for name in more}
    return replace(
        settled,
        params={**settled.params, **more},
        decided_by={**settled.decided_by, **by_whom},
    )


def _asked_for(
    asked: Sequence[Requirement],
    others: Sequence[ConsumerFacts],
    version: VersionFacts,
    present: ResourceFacts | None,
    snapshot: Snapshot,
    defaults: Mapping[str, Any],
    *,
    shrink: bool,
) -> Settlement:
    wishes = _wishes(asked, others, snapshot)
    voiced = [wish for wish in wishes if wish.params is not None]
    if len(voiced) == 1 and not version.merge_rules:
        only = voiced[0]
        params = only.params or {}
        return Settlement(params, dict.fromkeys(params, (str(only.consumer),)))
    if not voiced and present is not None and not _wished_before(asked, present, snapshot):
        return Settlement(present.params, {})
    claims = combine(map(claims_of, wishes))
    return _settled(claims, version, present, defaults, shrink=shrink)


def _wishes(
    asked: Sequence[Requirement], others: Sequence[ConsumerFacts], snapshot: Snapshot
) -> list[Wish]:
    here = snapshot.path
    wishes = [
        Wish(
            snapshot.application,
            each.workload.name,
            each.declaration.alias,
            in_own_terms(each.params, each.key, here),
            each.declaration.priority,
        )
        for each in asked
    ]
    wishes += [
        Wish(
            each.application,
            each.workload,
            each.alias,
            in_own_terms(each.params, each.key, here),
            each.priority,
        )
        for each in others
    ]
    return wishes


def merge_problems(error: MergeConflictError, asked: Sequence[Requirement]) -> list[Problem]:
    """Place the conflicts of one resource at the requirements of the given files."""
    by_alias = {(each.workload.name, each.declaration.alias): each for each in asked}
    problems = []
    for conflict in error.conflicts:
        sides = [each for claim in reversed(conflict.claims) for each in sorted(claim.consumers)]
        mine = next(
            (
                by_alias[side.workload, side.alias]
                for side in sides
                if (side.workload, side.alias) in by_alias
            ),
            asked[0],
        )
        problems.append(
            mine.problem(
                f"{mine.key} cannot serve everybody: {conflict}.",
                below="params",
                hint=conflict.hint,
            )
        )
    return problems


def _settled(
    claims: Claims,
    version: VersionFacts,
    present: ResourceFacts | None,
    defaults: Mapping[str, Any],
    *,
    shrink: bool,
) -> Settlement:
    rules = rules_of(version.merge_rules)
    bare = settle(claims, rules)
    chosen = bare
    shrinks: tuple[Shrink, ...] = ()
    before = _before(version, present, claims, defaults)
    if before:
        try:
            held = settle(claims, rules, before)
        except MergeConflictError:
            held = bare  # Together with the floor a limit is exceeded: what is wished goes first.
        keeps = version.shrink == "never" or (version.shrink == "propose" and not shrink)
        chosen = held if keeps else bare
        shrinks = _shrinks(held, bare, "applied" if not keeps else version.shrink)
    return Settlement(
        params=chosen.params,
        decided_by={param: tuple(map(str, who)) for param, who in chosen.decided_by.items()},
        unmet=tuple(
            UnmetWish(str(each.consumer), each.param, each.asked, each.given)
            for each in unmet(claims, rules, chosen.params)
        ),
        shrinks=shrinks,
    )


def _before(
    version: VersionFacts,
    present: ResourceFacts | None,
    claims: Claims,
    defaults: Mapping[str, Any],
) -> Mapping[str, Any]:
    """Return what the params may not fall below or, where they may, are compared with.

    What is as the defaults say was asked for by nobody, so it can go when they change.
    """
    if present is None or not version.merge_rules:
        return {}
    before = present.params if version.shrink == "apply" else present.floor
    return {
        name: value
        for name, value in before.items()
        if name in claims.by_param or name not in defaults or value != defaults[name]
    }


def _shrinks(held: Settled, bare: Settled, verdict: str) -> tuple[Shrink, ...]:
    return tuple(
        Shrink(param, held.params[param], bare.params.get(param), verdict)
        for param in held.params
        if param not in bare.params or text(held.params[param]) != text(bare.params[param])
    )


def _wished_before(
    asked: Sequence[Requirement], present: ResourceFacts, snapshot: Snapshot
) -> bool:
    """Tell whether it was this application that asked for the params there are, and still is here."""
    return bool(asked) and any(
        consumer.params is not None
        for consumer in snapshot.consumers
        if consumer.key == present.key and consumer.application == snapshot.application
    )
