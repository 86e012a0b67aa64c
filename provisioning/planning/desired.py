"""What each resource named by a deployment shall be: one template version, one input, one name."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from provisioning.planning.addresses import in_own_terms
from provisioning.planning.context import ContextBuilder
from provisioning.planning.expressions import ExpressionError
from provisioning.planning.facts import (
    ConsumerFacts,
    ResourceFacts,
    Snapshot,
    VersionFacts,
)
from provisioning.planning.matching import Match, Matcher
from provisioning.planning.merging import MergeConflictError
from provisioning.planning.naming import resource_name
from provisioning.planning.needs import inputs_of
from provisioning.planning.plan import Candidate, Shrink, UnmetWish
from provisioning.planning.references import keys_in
from provisioning.planning.requirements import Requirement
from provisioning.planning.settling import (
    Settlement,
    merge_problems,
    pool_settlement,
    settlement,
)
from provisioning.planning.validators import suits
from provisioning.score.workload import Json, Problem, Workload


@dataclass(frozen=True, slots=True)
class Desired:
    """What one resource shall be; `present` is the resource as it is now, if there is one."""

    key: str
    uid: str
    name: str
    type: str
    class_: str
    version: VersionFacts
    params: Mapping[str, Any]
    context: Mapping[str, Any]
    spec_digest: str
    depends_on: Mapping[str, str]
    candidates: tuple[Candidate, ...]
    present: ResourceFacts | None
    decided_by: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unmet: tuple[UnmetWish, ...] = ()
    shrinks: tuple[Shrink, ...] = ()
    inputs: Mapping[str, Any] = field(default_factory=dict)


def desired_resources(
    requirements: Sequence[Requirement],
    others: Mapping[str, Sequence[ConsumerFacts]],
    workloads: Sequence[Workload],
    snapshot: Snapshot,
    *,
    upgrade: bool,
    shrink: bool = False,
    problems: list[Problem],
) -> dict[str, Desired]:
    """Settle every required resource, or tell in `problems` why it cannot be.

    `shrink` lets parameters shrink whose template only proposes it. `others` are, by key, the consumers that stay besides the given requirements.
    """
    by_key: dict[str, list[Requirement]] = defaultdict(list)
    for requirement in requirements:
        by_key[requirement.key].append(requirement)
    matcher = Matcher(snapshot)
    context = ContextBuilder(workloads, snapshot)
    desired = {}
    for key in sorted(by_key):
        asked = by_key[key]
        present = _present(key, snapshot)
        before = len(problems)
        match = _matched(asked, present, matcher, snapshot, upgrade=upgrade, problems=problems)
        if match.version is None:
            continue
        staying = others.get(key, ())
        try:
            if pool := asked[0].pool:
                settled = (
                    Settlement(present.params, {}) if present else pool_settlement(pool, snapshot)
                )
            else:
                settled = settlement(
                    asked, staying, match.version, present, snapshot, shrink=shrink
                )
        except MergeConflictError as error:
            problems += merge_problems(error, asked)
            continue
        if len(problems) > before:
            continue
        try:
            desired[key] = _settled(asked, staying, present, match, settled, context, snapshot)
        except ExpressionError as error:
            message = f"the template {match.version.template} cannot be filled in: {error}"
            problems.append(asked[0].problem(message))
    return desired


def refreshed(
    present: ResourceFacts, workloads: Sequence[Workload], snapshot: Snapshot
) -> tuple[Mapping[str, Any], str]:
    """Return context and spec digest of an existing resource as this deployment would leave them."""
    context = ContextBuilder(workloads, snapshot).again(present)
    return context, spec_digest(present.version, present.name, present.params, context)


def as_it_is(present: ResourceFacts, depends_on: Mapping[str, str]) -> Desired:
    """Desire a resource to stay as it is."""
    return Desired(
        key=present.key,
        uid=present.uid,
        name=present.name,
        type=present.type,
        class_=present.class_,
        version=present.version,
        params=present.params,
        context=present.context,
        spec_digest=present.spec_digest,
        depends_on=depends_on,
        candidates=(),
        present=present,
    )


def without_leaving(
    present: ResourceFacts,
    staying: Sequence[ConsumerFacts],
    snapshot: Snapshot,
    context: Mapping[str, Any],
) -> Desired:
    """Desire what those who stay ask of a resource that others leave.

    Where they conflict without those who leave, or what is left does not suit what requires it, it
    stays as it is until one of them is deployed.
    """
    kept = {edge: kind for edge, kind in snapshot.dependencies.items() if edge[0] == present.key}
    as_now = as_it_is(present, {target: kind for (_, target), kind in kept.items()})
    own_terms = in_own_terms(present.params, present.key, snapshot.path)
    digest = spec_digest(present.version, present.name, own_terms, context)
    as_now = replace(as_now, context=context, spec_digest=digest)
    if not present.version.merge_rules:
        return as_now
    try:
        settled = settlement((), staying, present.version, present, snapshot)
    except MergeConflictError:
        return as_now
    filled = {
        name: present.params[name] for name in present.version.inputs if name in present.params
    }
    params = {**settled.params, **filled}
    if not suits(present.version, params, staying, snapshot):
        return as_now
    kind = _kind(present.version)
    depends_on = {target: kind for each in staying for target in each.depends_on}
    depends_on |= dict.fromkeys(_allowed(params, (), present, snapshot), "output")
    own_terms = in_own_terms(params, present.key, snapshot.path)
    digest = spec_digest(present.version, present.name, own_terms, context)
    return replace(
        as_now,
        params=params,
        spec_digest=digest,
        depends_on=dict(sorted(depends_on.items())),
        decided_by=settled.decided_by,
        unmet=settled.unmet,
        shrinks=settled.shrinks,
    )


def spec_digest(
    version: VersionFacts, name: str, params: Mapping[str, Any], context: Mapping[str, Any]
) -> str:
    """Return the sha256 of a resource's template version and unsubstituted input.

    `params` are in its own terms, so that all who look at it find the same digest.
    """
    spec = [version.template, version.version, version.digest, name, params, context]
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _present(key: str, snapshot: Snapshot) -> ResourceFacts | None:
    resource = snapshot.resources.get(key)
    return None if resource is None or resource.deleting else resource


def _matched(
    asked: Sequence[Requirement],
    present: ResourceFacts | None,
    matcher: Matcher,
    snapshot: Snapshot,
    *,
    upgrade: bool,
    problems: list[Problem],
) -> Match:
    """Choose the version: an existing resource keeps its own unless its creator upgrades it."""
    first = asked[0]
    for requirement in asked[1:] if present is None else asked:
        problems.extend(_type_problems(requirement, first, present, snapshot.application))
    type_, class_ = first.declaration.type, first.declaration.class_
    match = matcher.match(type_, class_, first.declaration.id or "")
    if first.pool is not None:
        match = Match(first.pool.version, ())
    if first.pool is not None and present is not None:
        return Match(present.version, ())
    if present is not None:
        may_upgrade = upgrade and present.created_by == snapshot.application and match.version
        return match if may_upgrade else Match(present.version, match.candidates)
    if match.version is None:
        problems.append(
            first.problem(
                f"No template serves `{type_}.{class_}` for `{first.declaration.alias}`.",
                below="type",
                hint=matcher.suggestion(type_, class_),
            )
        )
    elif tool := snapshot.missing_tools.get(match.version.driver):
        problems.append(
            first.problem(
                f"The template {match.version.template} needs {tool}, which is installed on no "
                f"worker of the environment {snapshot.environment}.",
                below="type",
                hint=f"install {tool} where the worker runs and start the worker again",
            )
        )
    return match


def _type_problems(
    requirement: Requirement, first: Requirement, present: ResourceFacts | None, application: str
) -> list[Problem]:
    wanted = f"{requirement.declaration.type}.{requirement.declaration.class_}"
    if present is not None:
        found, maker = f"{present.type}.{present.class_}", present.created_by
        made = f"made by application {maker}" if maker else "which was adopted"
    else:
        found = f"{first.declaration.type}.{first.declaration.class_}"
        made = f"made by workload {first.workload.name}"
    if wanted == found:
        return []
    return [
        requirement.problem(
            f"`{requirement.declaration.alias}` of workload {requirement.workload.name} of "
            f"application {application} asks for {wanted}, but {requirement.key} is {found}, "
            f"{made}.",
            below="type",
            hint="ask for the same type and class, or use another name",
        )
    ]


def _settled(
    asked: Sequence[Requirement],
    others: Sequence[ConsumerFacts],
    present: ResourceFacts | None,
    match: Match,
    settled: Settlement,
    context: ContextBuilder,
    snapshot: Snapshot,
) -> Desired:
    version = match.version
    assert version is not None  # noqa: S101 - the caller has checked it
    first = asked[0]
    told = context.of(asked, present, version)
    inputs = _inputs(asked, version, settled, told)
    params = {**settled.params, **inputs}
    key = first.key
    declaration = first.declaration
    name = (
        present.name
        if present
        else resource_name(
            snapshot.organisation, snapshot.environment, key, declaration.type, version.naming
        )
    )
    strong = _kind(version)
    depends_on: dict[str, str] = {}
    for other in others:
        depends_on |= dict.fromkeys(other.depends_on, strong)
    for requirement in asked:
        depends_on |= {
            target: strong if kind == "strong" else kind
            for target, kind in requirement.depends_on.items()
            if kind != "output" and depends_on.get(target) != strong
        }
    depends_on |= dict.fromkeys(_allowed(params, asked, present, snapshot), "output")
    return Desired(
        key=key,
        uid=present.uid if present else declaration.uid,
        name=name,
        type=declaration.type,
        class_=declaration.class_,
        version=version,
        params=params,
        context=told,
        spec_digest=spec_digest(version, name, in_own_terms(params, key, snapshot.path), told),
        depends_on=dict(sorted(depends_on.items())),
        candidates=match.candidates,
        present=present,
        decided_by=settled.decided_by,
        unmet=settled.unmet,
        shrinks=settled.shrinks,
        inputs=inputs,
    )


def _kind(version: VersionFacts) -> str:
    """Return how a resource depends on what it needs: one with validators looks at the outputs."""
    return "output" if any(need.get("validators") for need in version.requirements) else "strong"


def _allowed(
    params: Mapping[str, Json],
    asked: Sequence[Requirement],
    present: ResourceFacts | None,
    snapshot: Snapshot,
) -> list[str]:
    """Return whose outputs the params may use: what is asked for now, and what gave some before.

    The stored wish of another consumer brings nothing back that was revoked from it.
    """
    declared = {target for each in asked for target in (*each.depends_on, *each.needs.values())}
    return sorted(
        target
        for target in keys_in(params)
        if target in declared or (present and (present.key, target) in snapshot.dependencies)
    )


def _inputs(
    asked: Sequence[Requirement],
    version: VersionFacts,
    settled: Settlement,
    context: Mapping[str, Any],
) -> dict[str, Any]:
    """Fill in what the template fills in itself; raise ExpressionError."""
    needs = next((each.needs for each in asked if each.needs), {})
    if version.requirements and not needs:
        return {}  # Why it could not be expanded has been told.
    return inputs_of(version, settled.params, context, needs)
