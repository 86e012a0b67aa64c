"""What resources need besides themselves: the needs of components, and what is co-provisioned.

A template may require further resources, whose outputs it then sees, and provision others beside
itself. Each such need becomes a requirement of its own under the alias path of what brought it, and
is expanded in turn, until nothing new is needed. The needs of one application that have the same
type, class and key are one resource; docs/components.md tells all rules.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from provisioning.planning.addresses import environment_of, key_of
from provisioning.planning.expressions import (
    CONTEXT,
    PARAMS,
    SELF,
    Expression,
    ExpressionError,
    fill,
)
from provisioning.planning.facts import ConsumerFacts, Snapshot, VersionFacts
from provisioning.planning.matching import Matcher
from provisioning.planning.naming import needed_key
from provisioning.planning.needs import (
    SAME_CLASS,
    SAME_ID,
    Need,
    Scope,
    names_of,
    needs_of,
    with_defaults,
)
from provisioning.planning.references import bound_references, keys_in
from provisioning.planning.requirements import Requirement
from provisioning.score.workload import Binding, Json, Problem, ResourceDeclaration

DECLARED, REQUIRED, CO_PROVISIONED, FOLLOWED = "declared", "required", "co-provisioned", "followed"
LONGEST_ALIAS = 300
GROUP_LENGTH = 8


def expanded(
    requirements: Sequence[Requirement],
    staying: Iterable[ConsumerFacts],
    snapshot: Snapshot,
    *,
    upgrade: bool,
    problems: list[Problem],
) -> list[Requirement]:
    """Add everything that the required resources need; tell in `problems` what cannot be expanded.

    `staying` are the consumers that the plan does not cover.
    """
    expansion = _Expansion(requirements, staying, snapshot, upgrade=upgrade, problems=problems)
    for requirement in requirements:
        expansion.expand(requirement, (_Link(requirement.key, _type_class(requirement), False),))
    return expansion.result()


def need_output_problems(
    requirements: Iterable[Requirement],
    versions: Mapping[str, VersionFacts],
    inputs: Mapping[str, Mapping[str, Json]],
) -> Iterator[Problem]:
    """Check that the outputs which templates take from what they need are declared there.

    `versions` and `inputs` (what templates fill in) are by key.
    """
    told: set[tuple[str, str, str]] = set()
    for each in requirements:
        own = each.params if each.origin != DECLARED else None
        for reference in bound_references([own or {}, inputs.get(each.key, {})]):
            version = versions.get(reference.alias)
            if version is None or {reference.keys[0], "*"} & version.outputs.keys():
                continue
            place = (each.key, reference.alias, reference.keys[0])
            if place not in told:
                told.add(place)
                yield each.problem(
                    f"its template takes the output `{reference.keys[0]}` of {reference.alias}, which "
                    f"the template {version.template} {version.version} does not declare.",
                    hint=f"it has {', '.join(sorted(version.outputs)) or 'none'}",
                )


@dataclass(frozen=True, slots=True)
class _Link:
    """One resource on the way down from what the file declares; `required` by the one before."""

    key: str
    type_class: str
    required: bool


class _Expansion:
    """Expand the requirements of one plan, depth first, each set of params of a resource once."""

    def __init__(
        self,
        requirements: Sequence[Requirement],
        staying: Iterable[ConsumerFacts],
        snapshot: Snapshot,
        *,
        upgrade: bool,
        problems: list[Problem],
    ) -> None:
        self._snapshot = snapshot
        self._upgrade = upgrade
        self._problems = problems
        self._matcher = Matcher(snapshot)
        self._found = {(each.workload.name, each.declaration.alias): each for each in requirements}
        self._voiced = {each.key for each in requirements if each.params is not None}
        self._voiced |= {each.key for each in staying if each.params is not None}
        self._done: set[tuple[str, str, str, str]] = set()
        self._copied: set[tuple[str, str]] = set()
        self._beside: dict[str, set[str]] = {}

    def result(self) -> list[Requirement]:
        """Return all requirements, dependents of what is followed depending on what follows it."""
        changed = bool(self._copied)
        while changed:
            changed = False
            for place, each in self._found.items():
                more = {
                    new: "strong"
                    for base, new in sorted(self._copied)
                    if base in each.depends_on
                    and new not in each.depends_on
                    and each.key not in self._beside[base]
                }
                if more:
                    changed = True
                    depends_on = dict(sorted({**each.depends_on, **more}.items()))
                    self._found[place] = replace(each, depends_on=depends_on)
        return sorted(
            self._found.values(), key=lambda each: (each.workload.name, each.declaration.alias)
        )

    def expand(self, requirement: Requirement, chain: tuple[_Link, ...]) -> None:
        """Add what one requirement needs, and what that needs in turn."""
        version = self._version(requirement)
        if version is None or not (version.requirements or version.co_provision):
            return
        given = sorted(set(requirement.params or {}) & set(version.inputs))
        if given:
            self._tell(requirement, f"`{given[0]}` is filled in by the template.", "leave it out")
            return
        needs = needs_of(version)
        try:
            keys = {each.key: self._key(each, requirement, version) for each in needs}
            required = {each.key: keys[each.key] for each in needs if each.required}
            self._need(requirement, required)
            if self._is_done(requirement):
                return
            for need in needs:
                self._add(need, requirement, version, keys, chain)
        except ExpressionError as error:
            schema = version.params_schema
            if error.param not in schema.get("required", ()):
                message = f"the template {version.template} cannot be expanded: {error}"
                self._tell(requirement, message, "")

    def _version(self, requirement: Requirement) -> VersionFacts | None:
        present = self._snapshot.resources.get(requirement.key)
        declaration = requirement.declaration
        if present is not None and not present.deleting:
            if present.adopted:
                return None
            if not (self._upgrade and present.created_by == self._snapshot.application):
                return present.version
        wanted = (declaration.type, declaration.class_, declaration.id or "")
        found = self._matcher.match(*wanted).version
        return found or (present.version if present is not None else None)

    def _is_done(self, requirement: Requirement) -> bool:
        """Tell whether the same was expanded before below the alias, so that all of it is there."""
        wanted = json.dumps([requirement.params, requirement.declaration.priority], sort_keys=True)
        root = requirement.declaration.alias.partition("/")[0]
        place = (requirement.workload.name, root, requirement.key, wanted)
        done = place in self._done and requirement.origin != DECLARED
        self._done.add(place)
        return done

    def _add(
        self,
        need: Need,
        parent: Requirement,
        version: VersionFacts,
        keys: Mapping[str, str],
        chain: tuple[_Link, ...],
    ) -> None:
        key = keys[need.key]
        required = (each for each in needs_of(version) if each.required)
        names = {name: keys[of] for name, of in names_of(required).items()}
        if not need.required:
            names[SELF] = parent.key
        child = self._child(need, parent, version, key, names)
        if need.copy_dependents:
            self._copied.add((parent.key, key))
        if not need.required:
            self._beside.setdefault(parent.key, set()).add(key)
        link = _Link(key, _type_class(child), need.required)
        on_the_way = [each.key for each in chain]
        if key in on_the_way:
            circle = [*chain[on_the_way.index(key) :], link]
            if all(each.required for each in circle[1:]):
                path = " → ".join(each.type_class for each in circle)
                self._tell(parent, f"these resources need one another: {path}.", "")
            elif not need.required:  # what it depends on may close a circle, which is found later
                self._found[child.workload.name, child.declaration.alias] = child
            return
        if len(child.declaration.alias) > LONGEST_ALIAS:
            self._tell(parent, f"`{child.declaration.alias}` is nested too deeply.", "")
            return
        self._found[child.workload.name, child.declaration.alias] = child
        self.expand(child, (*chain, link))

    def _child(
        self,
        need: Need,
        parent: Requirement,
        version: VersionFacts,
        key: str,
        names: Mapping[str, str],
    ) -> Requirement:
        above = parent.declaration
        silent = parent.params is None and parent.key in self._voiced
        scope = Scope(with_defaults(version, parent.params or {}), self._context(parent), names)
        params = None if silent or not need.params else fill(need.params, scope.look_up)
        class_ = above.class_ if need.class_ == SAME_CLASS else need.class_
        id_ = None if need.id in ("", SAME_ID) else need.id
        spoken = id_ or (
            above.uid.partition("#")[2] if need.id == SAME_ID else key.rpartition("#")[2]
        )
        depends_on = dict.fromkeys(keys_in(params or {}), "output")
        if need.is_dependent:
            depends_on.setdefault(parent.key, "strong")
        follows = need.copy_dependents and parent.origin in (DECLARED, FOLLOWED)
        origin = REQUIRED if need.required else FOLLOWED if follows else CO_PROVISIONED
        declaration = ResourceDeclaration(
            alias=f"{above.alias}/{need.key}",
            type=need.type,
            class_=class_,
            id=id_,
            uid=f"{need.type}.{class_}#{spoken}",
            params=params or {},
            metadata={},
            binding=Binding(_mode(key), name=need.key),
            priority=above.priority if need.priority is None else need.priority,
        )
        if params is not None:
            self._voiced.add(key)
        return Requirement(
            parent.workload,
            declaration,
            key,
            params,
            dict(sorted(depends_on.items())),
            origin=origin,
        )

    def _key(self, need: Need, parent: Requirement, version: VersionFacts) -> str:
        class_ = parent.declaration.class_ if need.class_ == SAME_CLASS else need.class_
        id_ = "" if need.id == SAME_ID else need.id
        group = need.key + self._group(need, class_, parent, version)
        type_class = f"{need.type}.{class_}"
        return needed_key(parent.key, type_class, group, id_, same_id=need.id == SAME_ID)

    def _group(self, need: Need, class_: str, parent: Requirement, version: VersionFacts) -> str:
        """Tell needs apart that differ in what their template shares by, or return ""."""
        found = self._version_of(need, class_, parent)
        if found is None or not found.share_same:
            return ""
        scope = Scope(with_defaults(version, parent.params or {}), self._context(parent), {})

        def look_up(expression: Expression) -> Any:
            if expression.root in (PARAMS, CONTEXT):
                return scope.look_up(expression)
            return f"${{{expression.text}}}"

        filled = with_defaults(found, fill(need.params, look_up))
        values = json.dumps([filled.get(name) for name in found.share_same], sort_keys=True)
        return "-" + hashlib.sha256(values.encode()).hexdigest()[:GROUP_LENGTH]

    def _version_of(self, need: Need, class_: str, parent: Requirement) -> VersionFacts | None:
        """Return what serves a need; in another environment it is there, or the plan is refused."""
        id_ = "" if need.id == SAME_ID else need.id
        if not environment_of(parent.key):
            return self._matcher.match(need.type, class_, id_).version
        same_id = need.id == SAME_ID
        key = needed_key(parent.key, f"{need.type}.{class_}", need.key, id_, same_id=same_id)
        resources = self._snapshot.resources
        return next(
            (resources[each].version for each in sorted(resources) if _is_of_group(each, key)), None
        )

    def _context(self, parent: Requirement) -> dict[str, str]:
        here = self._snapshot
        return {
            "alias": parent.declaration.alias.partition("/")[0],
            "application": here.application,
            "environment": here.environment,
            "environment_kind": here.environment_kind,
            "organisation": here.organisation,
            "workload": parent.workload.name,
        }

    def _need(self, requirement: Requirement, required: Mapping[str, str]) -> None:
        """Let a requirement depend on what its template requires."""
        place = (requirement.workload.name, requirement.declaration.alias)
        each = self._found[place]
        depends_on = {**each.depends_on, **dict.fromkeys(required.values(), "strong")}
        ordered = dict(sorted(depends_on.items()))
        self._found[place] = replace(each, depends_on=ordered, needs=dict(required))

    def _tell(self, requirement: Requirement, message: str, hint: str) -> None:
        self._problems.append(requirement.problem(message, hint=hint))


def _is_of_group(key: str, beginning: str) -> bool:
    return key == beginning or key.startswith(f"{beginning}-")


def _type_class(requirement: Requirement) -> str:
    return f"{requirement.declaration.type}.{requirement.declaration.class_}"


def _mode(key: str) -> Any:
    space = key_of(key).partition("/")[0]
    return {"private": "private", "with": "shared"}.get(space, "application")
