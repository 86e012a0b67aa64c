"""The plan: what a deployment will do, as plain data with a digest."""

from __future__ import annotations

import enum
import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from provisioning.exceptions import ConductorError
from provisioning.planning.addresses import environment_of
from provisioning.planning.questions import Question
from provisioning.score.workload import Problem, sorted_maps, widest


def _plain(value: Any) -> dict[str, Any]:
    # dataclasses.asdict copies deeply, which takes most of the time of a large plan.
    fields = {name: getattr(value, name) for name in value.__slots__}
    for name, item in fields.items():
        if type(item) in (dict, list):
            fields[name] = sorted_maps(item)
    return fields


class Action(enum.StrEnum):
    """What a plan does with one resource."""

    CREATE = "create"
    REUSE = "reuse"
    """It exists; this application joins it."""
    UPDATE = "update"
    UNCHANGED = "unchanged"
    """This application uses it already, and its input stays."""
    RECHECK = "recheck"
    """Something it takes outputs from is updated, so it may have to be updated too."""
    RELEASE = "release"
    """This application leaves it; others or a hold keep it."""
    DESTROY = "destroy"


class PlanError(ConductorError):
    """Refuse to plan; `problems` has every reason, in the order of files and lines."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass(frozen=True, slots=True)
class Change:
    """One parameter that an update changes; `before` or `after` is None where it was or is unset."""

    param: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Shrink:
    """A parameter that would be less without those who ask for it no more.

    `verdict` is `applied`, `propose` (it stays until somebody deploys with `--shrink`) or `never`.
    """

    param: str
    before: Any
    after: Any
    verdict: str


@dataclass(frozen=True, slots=True)
class UnmetWish:
    """A consumer's wish that the merged input does not give."""

    consumer: str
    param: str
    asked: Any
    given: Any


@dataclass(frozen=True, slots=True)
class Candidate:
    """One rule that was considered for a requirement, and why it won or lost."""

    template: str
    rule: str
    chosen: bool
    reason: str


@dataclass(frozen=True, slots=True)
class ConsideredResource:
    """One live resource that was considered for an alias, and why it was taken or not."""

    key: str
    name: str
    owner_team: str
    chosen: bool
    reason: str


@dataclass(frozen=True, slots=True)
class PlannedSlot:
    """The match slot of a resource, in which the next ordinal is made when one is full."""

    slot: str
    ordinal: int
    max_consumers: int | None
    conditional: bool


@dataclass(frozen=True, slots=True)
class PlannedConsumer:
    """Who will consume a resource once the plan has been carried out.

    An application in another environment is named `ORGANISATION/ENVIRONMENT/APPLICATION`.
    """

    application: str
    workload: str
    alias: str
    mode: str
    team: str = ""


@dataclass(frozen=True, slots=True)
class PlannedTemplate:
    """The template version that serves a resource."""

    version_id: int
    name: str
    version: str
    digest: str
    driver: str


@dataclass(frozen=True, slots=True)
class PlannedResource:
    """One resource of the plan: what it shall be, and why.

    `params` and `context` are the unsubstituted input, `depends_on` maps the keys it needs to the
    kind of dependency, `resource_id` is empty for one to be created. `reason` is a sentence.
    `joining` names those who are given outputs of their own from now on, `leaving` those whose own
    end.
    """

    key: str
    """In another environment the address; see `planning.addresses`."""
    uid: str
    name: str
    type: str
    class_: str
    action: Action
    reason: str
    template: PlannedTemplate
    params: Mapping[str, Any]
    context: Mapping[str, Any]
    spec_digest: str
    resource_id: str = ""
    deletion_policy: str = "delete"
    depends_on: Mapping[str, str] = field(default_factory=dict)
    consumers: tuple[PlannedConsumer, ...] = ()
    changes: tuple[Change, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    slot: PlannedSlot | None = None
    decided_by: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unmet: tuple[UnmetWish, ...] = ()
    shrinks: tuple[Shrink, ...] = ()
    joining: tuple[str, ...] = ()
    leaving: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the resource as JSON values."""
        return _plain(self) | {
            "template": _plain(self.template),
            "consumers": [_plain(consumer) for consumer in self.consumers],
            "changes": [_plain(change) for change in self.changes],
            "candidates": [_plain(candidate) for candidate in self.candidates],
            "slot": _plain(self.slot) if self.slot else None,
            "decided_by": {param: list(who) for param, who in sorted(self.decided_by.items())},
            "unmet": [_plain(wish) for wish in self.unmet],
            "shrinks": [_plain(shrink) for shrink in self.shrinks],
            "joining": list(self.joining),
            "leaving": list(self.leaving),
        }


@dataclass(frozen=True, slots=True)
class PlannedBinding:
    """An alias of a workload bound to a key.

    One matched by criteria (`matching`) tells the resources that were `considered`, best first, and
    counts the others by the reason for which they were left (`left_out`).
    """

    workload: str
    alias: str
    key: str
    mode: str
    params: Mapping[str, Any] | None
    depends_on: tuple[str, ...] = ()
    priority: int | None = None
    matching: Mapping[str, Any] | None = None
    considered: tuple[ConsideredResource, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    origin: str = "declared"

    def to_json(self) -> dict[str, Any]:
        """Return the binding as JSON values."""
        return _plain(self) | {"considered": [_plain(each) for each in self.considered]}


@dataclass(frozen=True, slots=True)
class PlannedRelease:
    """An alias of a workload that leaves its resource."""

    workload: str
    alias: str
    key: str


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step; `needs` are the keys whose steps of the same plan must have succeeded first."""

    key: str
    action: str
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What one deployment will do.

    `steps` come in an order in which they could run one by one. `touched` are the keys whose
    desired input, edges or existence it changes: nobody else may have unfinished work on them.
    `questions` are what owners have to allow before anything of it starts.
    """

    kind: str
    application: str
    environment: str
    workloads: tuple[str, ...]
    resources: tuple[PlannedResource, ...]
    bindings: tuple[PlannedBinding, ...]
    releases: tuple[PlannedRelease, ...]
    steps: tuple[PlannedStep, ...]
    touched: frozenset[str] = frozenset()
    questions: tuple[Question, ...] = ()

    @property
    def digest(self) -> str:
        """Return the sha256 of what was decided; how far the work has come does not enter it."""
        decided = self.to_json()
        del decided["steps"]
        for binding in decided["bindings"]:
            del binding["considered"], binding["left_out"]
        for resource in decided["resources"]:
            del resource["resource_id"], resource["reason"], resource["template"]["version_id"]
        text = json.dumps(decided, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def scope(self) -> str:
        """Return how far beyond its environment it has looked for resources, or concerns any."""
        scopes = [str(each.matching["scope"]) for each in self.bindings if each.matching]
        if any(environment_of(each.key) for each in self.resources):
            scopes.append("organisation")
        return widest(scopes)

    @property
    def changes_nothing(self) -> bool:
        """Tell whether carrying it out would run no step and release nothing."""
        return not self.steps and not self.releases

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values, in an order that depends on nothing but the plan."""
        return {
            "kind": self.kind,
            "application": self.application,
            "environment": self.environment,
            "workloads": list(self.workloads),
            "resources": [resource.to_json() for resource in self.resources],
            "bindings": [binding.to_json() for binding in self.bindings],
            "releases": [_plain(release) for release in self.releases],
            "steps": [_plain(step) for step in self.steps],
            "touched": sorted(self.touched),
            "questions": [question.to_json() for question in self.questions],
            "blast_radius": self.blast_radius(),
        }

    def blast_radius(self) -> dict[str, dict[str, list[str]]]:
        """Name the resources that other applications use and this plan changes.

        The result is `{team: {application/workload: [uid]}}`.
        """
        radius: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for resource in self.resources:
            if resource.action in (Action.UPDATE, Action.RECHECK, Action.DESTROY):
                for each in resource.consumers:
                    if each.application != self.application:
                        workload = f"{each.application}/{each.workload}"
                        radius[each.team][workload].add(resource.uid)
        return {
            team: {workload: sorted(uids) for workload, uids in sorted(workloads.items())}
            for team, workloads in sorted(radius.items())
        }
