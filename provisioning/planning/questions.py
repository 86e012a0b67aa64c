"""Whom a plan has to ask: owners whose resources it would use or change, and protected environments.

The resource's own team is never asked, and neither is anybody about an application that uses the
resource already, nor about the parts of what it may use. A grant or an open policy answers beforehand whether a resource may be used; a
change of what another team owns is asked in any case. Leaving a resource needs nobody's approval.
All that holds for the teams of other environments and organisations as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from provisioning.planning.addresses import environment_of, spoken
from provisioning.planning.facts import ResourceFacts, Snapshot
from provisioning.planning.naming import is_part
from provisioning.score.workload import Problem

if TYPE_CHECKING:
    from provisioning.planning.plan import Plan, PlannedBinding, PlannedResource
    from provisioning.planning.requirements import Requirement

OPEN, CLOSED = "open", "closed"
DEPENDENCIES = "dependencies"


@dataclass(frozen=True, slots=True)
class Question:
    """One thing that a team's owners have to allow; `text` is a sentence for them.

    `kind` is `resource` or `deployment` (then `key` and `uid` are empty, and `plan` is the digest
    of all that is going to be done). `wanted` maps
    `workload.alias` to the params it asks for, None if it names none; `changes` are those of an
    update; `users` are the other applications' workloads that use the resource.
    """

    kind: str
    team: str
    text: str
    key: str = ""
    uid: str = ""
    joins: bool = False
    wanted: Mapping[str, Any] = field(default_factory=dict)
    changes: tuple[Mapping[str, Any], ...] = ()
    users: tuple[str, ...] = ()
    plan: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the question as JSON values."""
        return {name: getattr(self, name) for name in self.__slots__} | {
            "changes": list(self.changes),
            "users": list(self.users),
        }

    @property
    def digest(self) -> str:
        """Return the sha256 of what is allowed by answering yes.

        Who else uses the resource counts only where it would change under them.
        """
        allowed = self.to_json()
        del allowed["text"], allowed["team"]
        if not self.changes:
            del allowed["users"]
        text = json.dumps(allowed, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


def questions_of(plan: Plan, snapshot: Snapshot) -> tuple[Question, ...]:
    """Return what a plan, as yet without questions, has to ask, in its order."""
    asked = []
    kind = plan.kind
    released = {release.key for release in plan.releases}
    if kind in _VERBS and (protected := _protected(plan, snapshot)):
        asked.append(
            Question(
                "deployment",
                snapshot.team,
                f"{snapshot.application} asks to {_VERBS[kind]} in {protected}.",
                plan=plan.digest,
            )
        )
    for planned in plan.resources:
        present = snapshot.resources.get(planned.key)
        if present is None or present.deleting or present.owner_team == snapshot.team:
            continue
        mine = [binding for binding in plan.bindings if binding.key == planned.key]
        leaves = kind != "deploy" or (not mine and planned.key in released)
        question = _about(planned, present, mine, snapshot, leaves=leaves)
        if question is not None:
            asked.append(question)
    return tuple(asked)


_VERBS = {"deploy": "deploy", "teardown": "tear workloads down"}


def _protected(plan: Plan, snapshot: Snapshot) -> str:
    """Name the protected environments that a plan has to do with, or return "".

    With its own it always has. With another one it has if it joins, changes or destroys a resource
    there; what is only brought about as it was agreed to counts for nothing.
    """
    paths = {
        environment_of(each.key)
        for each in plan.resources
        if each.action not in ("unchanged", "release")
    }
    others = [path for path in sorted(paths - {""}) if snapshot.elsewhere[path].protected]
    own = f"the protected environment {snapshot.environment}" if snapshot.protected else ""
    if not others:
        return own
    plural = "s" if len(others) > 1 else ""
    touched = f"touching the protected environment{plural} {', '.join(others)}"
    return f"{own or snapshot.environment}, {touched}"


def closed_problems(requirements: Sequence[Requirement], snapshot: Snapshot) -> list[Problem]:
    """Return a problem for each requirement of another team's resource that is closed to this one."""
    problems = []
    for requirement in requirements:
        present = snapshot.resources.get(requirement.key)
        if (
            present is not None
            and not present.deleting
            and present.owner_team != snapshot.team
            and present.sharing_policy == CLOSED
            and not may_use(present, snapshot)
            and not _comes_along(requirement.key, requirement.origin)
        ):
            problems.append(
                requirement.problem(
                    f"{requirement.key} is closed to other teams by its owner, the team "
                    f"{present.owner_team}.",
                    hint=f"ask the team {present.owner_team} for a grant, or use another name for "
                    "a resource of your own",
                )
            )
    return problems


def _about(
    planned: PlannedResource,
    present: ResourceFacts,
    bindings: Sequence[PlannedBinding],
    snapshot: Snapshot,
    *,
    leaves: bool,
) -> Question | None:
    named = any(not _comes_along(each.key, each.origin) for each in bindings)
    joins = named and not may_use(present, snapshot)
    changes = () if leaves else _changes(planned, snapshot)
    if not joins and not changes:
        return None
    wanted = {
        f"{each.workload}.{each.alias}": None if each.params is None else dict(each.params)
        for each in bindings
    }
    users = {
        f"{each.application}/{each.workload}"
        for each in planned.consumers
        if each.application != snapshot.application
    }
    asks = [
        *(["use"] if joins else []),
        *([f"change {', '.join(change['param'] for change in changes)} of"] if changes else []),
    ]
    return Question(
        kind="resource",
        team=present.owner_team,
        text=f"{snapshot.application} of the team {snapshot.team} asks to {' and '.join(asks)} "
        f"{spoken(planned.key)}.",
        key=planned.key,
        uid=planned.uid,
        joins=joins,
        wanted=wanted,
        changes=changes,
        users=tuple(sorted(users)),
    )


def _changes(planned: PlannedResource, snapshot: Snapshot) -> tuple[dict[str, Any], ...]:
    """List what would be other than it is: params, and what it depends on because somebody says so.

    What its template needs, and what its params take outputs from, was agreed to with these.
    """
    changes = [
        {"param": each.param, "before": each.before, "after": each.after}
        for each in (planned.changes if planned.action == "update" else ())
    ]
    after = _said(planned.depends_on)
    before = _said({to: kind for (of, to), kind in _edges_of(planned.key, snapshot)})
    if set(after) - set(before):
        changes.append({"param": DEPENDENCIES, "before": before, "after": after})
    return tuple(changes)


def _edges_of(key: str, snapshot: Snapshot) -> Iterator[tuple[tuple[str, str], str]]:
    return (edge for edge in snapshot.dependencies.items() if edge[0][0] == key)


def _said(depends_on: Mapping[str, str]) -> list[str]:
    return sorted(to for to, kind in depends_on.items() if kind != "output" and not is_part(to))


def _comes_along(key: str, origin: str) -> bool:
    """Tell whether it is used as a part of another resource, about which it is asked instead."""
    return is_part(key) and origin != "declared"


def may_use(present: ResourceFacts, snapshot: Snapshot) -> bool:
    """Tell whether the application needs not ask: it was allowed to, or uses the resource already."""
    return present.granted or present.sharing_policy == OPEN or _uses(present, snapshot)


def _uses(present: ResourceFacts, snapshot: Snapshot) -> bool:
    return any(
        each.key == present.key and each.application == snapshot.application
        for each in snapshot.consumers
    )
