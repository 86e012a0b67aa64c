"""Decide: Workloads and a Snapshot become a Plan. Pure, and the same in any order of its inputs."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from provisioning.graph.build import CycleError, order
from provisioning.planning.desired import Desired, desired_resources, refreshed
from provisioning.planning.facts import ConsumerFacts, ResourceFacts, Snapshot, VersionFacts
from provisioning.planning.lifecycle import destroyed_after, edges_after, why_kept
from provisioning.planning.plan import (
    Action,
    Change,
    Plan,
    PlanError,
    PlannedBinding,
    PlannedConsumer,
    PlannedRelease,
    PlannedResource,
    PlannedTemplate,
)
from provisioning.planning.requirements import Requirement, requirements_of
from provisioning.planning.steps import dependency_closure, output_dependents, planned_steps
from provisioning.planning.validation import (
    ParamChecks,
    container_output_problems,
    output_problems,
)
from provisioning.score.workload import Problem, Workload


def decide(workloads: Sequence[Workload], snapshot: Snapshot, *, upgrade: bool = False) -> Plan:
    """Plan the deployment of these workloads; the application's others stay as they are.

    With `upgrade`, resources that this application made move to their template's newest version.
    Raises PlanError with every reason why it cannot be done.
    """
    problems: list[Problem] = []
    workloads = sorted(workloads, key=lambda workload: workload.name)
    names = [workload.name for workload in workloads]
    requirements = requirements_of(workloads, snapshot, problems)
    staying = _staying(names, snapshot)
    desired = desired_resources(
        requirements, _by_key(staying), workloads, snapshot, upgrade=upgrade, problems=problems
    )
    _validate(workloads, requirements, desired, snapshot, problems)
    if problems:
        raise PlanError(_in_order(problems))
    for key, present in snapshot.resources.items():
        if key not in desired and present.version.uses and _is_own(present, snapshot):
            _refresh(present, workloads, snapshot, desired)
    return _Planner("deploy", names, requirements, staying, desired, snapshot).plan()


def decide_teardown(names: Sequence[str] | None, snapshot: Snapshot) -> Plan:
    """Plan the removal of these workloads, or of all the application has in the environment.

    Works from the stored graph alone. Raises PlanError for a workload that is not there.
    """
    known = sorted(snapshot.workloads)
    chosen = known if names is None else sorted(set(names))
    problems = [
        Problem(
            1,
            1,
            "",
            f"The application {snapshot.application} has no workload {name!r} in "
            f"{snapshot.environment}.",
            _hint(name, known),
        )
        for name in chosen
        if name not in snapshot.workloads
    ]
    if problems:
        raise PlanError(problems)
    return _Planner("teardown", chosen, [], _staying(chosen, snapshot), {}, snapshot).plan()


def _validate(
    workloads: Sequence[Workload],
    requirements: Sequence[Requirement],
    desired: Mapping[str, Desired],
    snapshot: Snapshot,
    problems: list[Problem],
) -> None:
    checks = ParamChecks()
    versions: dict[str, VersionFacts] = {key: each.version for key, each in desired.items()}
    aliases: dict[str, dict[str, str]] = defaultdict(dict)
    for requirement in requirements:
        aliases[requirement.workload.name][requirement.declaration.alias] = requirement.key
    for requirement in requirements:
        of_workload = aliases[requirement.workload.name]
        if requirement.key in desired and _sets_params(requirement, desired[requirement.key]):
            problems.extend(checks.problems(requirement, versions[requirement.key]))
        if requirement.params:
            problems.extend(output_problems(requirement, of_workload, versions))
    for workload in workloads:
        problems.extend(container_output_problems(workload, aliases[workload.name], versions))
    edges = edges_after(desired, snapshot)
    try:
        order(set(snapshot.resources) | set(desired), edges)
    except CycleError as error:
        problems.append(_cycle_problem(error, requirements))


def _sets_params(requirement: Requirement, desired: Desired) -> bool:
    """Tell whether a requirement must satisfy the schema: it names params, or nobody else does."""
    return requirement.params is not None or not desired.params


def _cycle_problem(error: CycleError, requirements: Sequence[Requirement]) -> Problem:
    by_key = {requirement.key: requirement for requirement in requirements}
    members = [by_key[key] for key in error.path[:-1] if key in by_key]
    places = [
        f"{each.key} at {each.workload.file}:{each.workload.position(each.path)[0]}"
        for each in members
    ]
    return members[0].problem(f"{error} ({'; '.join(places)})")


def _refresh(
    present: ResourceFacts,
    workloads: Sequence[Workload],
    snapshot: Snapshot,
    desired: dict[str, Desired],
) -> None:
    """Desire anew a resource whose driver looks at the workloads or variables, if these changed."""
    context, digest = refreshed(present, workloads, snapshot)
    if digest != present.spec_digest:
        depends_on = {
            target: kind
            for (source, target), kind in snapshot.dependencies.items()
            if source == present.key
        }
        now = _as_it_is(present, depends_on)
        desired[present.key] = replace(now, context=context, spec_digest=digest)


def _is_own(present: ResourceFacts, snapshot: Snapshot) -> bool:
    return present.created_by == snapshot.application and not present.deleting


def _staying(names: Iterable[str], snapshot: Snapshot) -> list[ConsumerFacts]:
    leaving = set(names)
    return [
        consumer
        for consumer in snapshot.consumers
        if consumer.application != snapshot.application or consumer.workload not in leaving
    ]


def _by_key(consumers: Iterable[ConsumerFacts]) -> dict[str, list[ConsumerFacts]]:
    by_key: dict[str, list[ConsumerFacts]] = defaultdict(list)
    for consumer in consumers:
        by_key[consumer.key].append(consumer)
    return by_key


def _in_order(problems: Iterable[Problem]) -> list[Problem]:
    return sorted(set(problems), key=lambda each: (each.file, each.line, each.column, each.message))


def _hint(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean `{close[0]}`?" if close else f"it has {', '.join(known) or 'none'}"


@dataclass(frozen=True, slots=True)
class _Planner:
    """Put one plan together from what was settled."""

    kind: str
    names: Sequence[str]
    requirements: Sequence[Requirement]
    staying: Sequence[ConsumerFacts]
    desired: Mapping[str, Desired]
    snapshot: Snapshot

    def plan(self) -> Plan:
        snapshot, desired = self.snapshot, self.desired
        bindings = self._bindings()
        releases = self._releases(bindings)
        consumers = self._consumers()
        edges = edges_after(desired, snapshot)
        destroyed = self._destroyed(releases, consumers, edges)
        edges = {edge: kind for edge, kind in edges.items() if edge[0] not in destroyed}
        actions = self._actions(edges, releases, destroyed)
        ensured = self._ensured(actions, edges)
        return Plan(
            kind=self.kind,
            application=snapshot.application,
            environment=snapshot.environment,
            workloads=tuple(self.names),
            resources=self._resources(actions, consumers, edges),
            bindings=tuple(bindings),
            releases=tuple(releases),
            steps=planned_steps(ensured, destroyed, edges, snapshot),
            touched=self._touched(actions, edges),
        )

    def _bindings(self) -> list[PlannedBinding]:
        return [
            PlannedBinding(
                workload=each.workload.name,
                alias=each.declaration.alias,
                key=each.key,
                mode=each.declaration.binding.mode,
                params=each.params,
                depends_on=tuple(
                    sorted(target for target, kind in each.depends_on.items() if kind != "output")
                ),
                priority=each.declaration.priority,
            )
            for each in sorted(
                self.requirements, key=lambda each: (each.workload.name, each.declaration.alias)
            )
        ]

    def _releases(self, bindings: Sequence[PlannedBinding]) -> list[PlannedRelease]:
        bound = {(each.workload, each.alias): each.key for each in bindings}
        return sorted(
            (
                PlannedRelease(consumer.workload, consumer.alias, consumer.key)
                for consumer in self.snapshot.consumers
                if consumer.application == self.snapshot.application
                and consumer.workload in set(self.names)
                and bound.get((consumer.workload, consumer.alias)) != consumer.key
            ),
            key=lambda each: (each.workload, each.alias),
        )

    def _consumers(self) -> dict[str, list[PlannedConsumer]]:
        after: dict[str, list[PlannedConsumer]] = defaultdict(list)
        for each in self.staying:
            after[each.key].append(
                PlannedConsumer(each.application, each.workload, each.alias, each.mode)
            )
        for requirement in self.requirements:
            after[requirement.key].append(
                PlannedConsumer(
                    self.snapshot.application,
                    requirement.workload.name,
                    requirement.declaration.alias,
                    requirement.declaration.binding.mode,
                )
            )
        for listed in after.values():
            listed.sort(key=lambda each: (each.application, each.workload, each.alias))
        return after

    def _destroyed(
        self,
        releases: Sequence[PlannedRelease],
        consumers: Mapping[str, Sequence[PlannedConsumer]],
        edges: Mapping[tuple[str, str], str],
    ) -> set[str]:
        """Everything this plan lets go of, and what an earlier one of this application left over."""
        candidates = {each.key for each in releases}
        candidates |= {
            target for source, target in self.snapshot.dependencies if source in self.desired
        }
        candidates |= {
            key for key, each in self.snapshot.resources.items() if _is_own(each, self.snapshot)
        }
        return destroyed_after(candidates, consumers, edges, self.snapshot, self.desired)

    def _actions(
        self,
        edges: Mapping[tuple[str, str], str],
        releases: Sequence[PlannedRelease],
        destroyed: Iterable[str],
    ) -> dict[str, Action]:
        used_before = {
            each.key
            for each in self.snapshot.consumers
            if each.application == self.snapshot.application
        }
        actions = {}
        for key, each in self.desired.items():
            if each.present is None:
                actions[key] = Action.CREATE
            elif each.spec_digest != each.present.spec_digest:
                actions[key] = Action.UPDATE
            else:
                actions[key] = Action.UNCHANGED if key in used_before else Action.REUSE
        updated = [key for key, action in actions.items() if action is Action.UPDATE]
        for key in output_dependents(updated, edges):
            if actions.get(key) not in (Action.CREATE, Action.UPDATE):
                actions[key] = Action.RECHECK
        for release in releases:
            actions.setdefault(release.key, Action.RELEASE)
        return actions | dict.fromkeys(destroyed, Action.DESTROY)

    def _ensured(
        self, actions: Mapping[str, Action], edges: Mapping[tuple[str, str], str]
    ) -> set[str]:
        """Everything whose input changes, and in the closure of what is used what is not clean."""
        changing = (Action.CREATE, Action.UPDATE, Action.RECHECK)
        ensured = {key for key, action in actions.items() if action in changing}
        used = dependency_closure((each.key for each in self.requirements), edges)
        unclean = {
            key
            for key in used - ensured
            if (resource := self.snapshot.resources.get(key)) and not resource.clean
        }
        takers = output_dependents(unclean, edges) & used
        return ensured | unclean | takers

    def _touched(
        self, actions: Mapping[str, Action], edges: Mapping[tuple[str, str], str]
    ) -> frozenset[str]:
        changing = (Action.CREATE, Action.UPDATE, Action.RECHECK, Action.DESTROY)
        touched = {key for key, action in actions.items() if action in changing}
        before, after = set(self.snapshot.dependencies.items()), set(edges.items())
        return frozenset(touched | {source for (source, _), _ in before ^ after})

    def _resources(
        self,
        actions: Mapping[str, Action],
        consumers: Mapping[str, Sequence[PlannedConsumer]],
        edges: Mapping[tuple[str, str], str],
    ) -> tuple[PlannedResource, ...]:
        needs: dict[str, dict[str, str]] = defaultdict(dict)
        for (source, target), kind in {**self.snapshot.dependencies, **edges}.items():
            needs[source][target] = kind
        inside = ((key, target) for key in actions for target in needs[key] if target in actions)
        return tuple(
            self._resource(
                key, actions, consumers.get(key, ()), {t: needs[key][t] for t in sorted(needs[key])}
            )
            for key in order(actions, inside)
        )

    def _resource(
        self,
        key: str,
        actions: Mapping[str, Action],
        consumers: Sequence[PlannedConsumer],
        depends_on: Mapping[str, str],
    ) -> PlannedResource:
        each = self.desired.get(key) or _as_it_is(self.snapshot.resources[key], depends_on)
        present = each.present
        action = actions[key]
        changes = _changes(each) if action is Action.UPDATE else ()
        return PlannedResource(
            key=key,
            uid=each.uid,
            name=each.name,
            type=each.type,
            class_=each.class_,
            action=action,
            reason=self._reason(each, action, actions, consumers, changes),
            template=PlannedTemplate(
                each.version.id,
                each.version.template,
                each.version.version,
                each.version.digest,
                each.version.driver,
            ),
            params=each.params,
            context=each.context,
            spec_digest=each.spec_digest,
            resource_id=present.id if present else "",
            deletion_policy=each.version.deletion_policy,
            depends_on=each.depends_on,
            consumers=tuple(consumers),
            changes=changes,
            candidates=each.candidates,
        )

    def _reason(
        self,
        each: Desired,
        action: Action,
        actions: Mapping[str, Action],
        consumers: Sequence[PlannedConsumer],
        changes: Sequence[Change],
    ) -> str:
        present = each.present
        if action is Action.CREATE:
            return "nothing in the environment has this key yet"
        if action is Action.UPDATE:
            return f"changes {', '.join(change.param for change in changes)}"
        if action is Action.RECHECK:
            updated = sorted(key for key in each.depends_on if actions.get(key) in _MAY_CHANGE)
            return f"may update after {', '.join(updated)}"
        if action is Action.DESTROY:
            return "nothing uses it any more"
        assert present is not None  # noqa: S101 - all other actions are about existing resources
        if action is Action.RELEASE:
            names = [f"{one.application}/{one.workload}" for one in consumers]
            return why_kept(present, names, self.snapshot.dependencies)
        if not present.clean:
            return "is not finished yet and will be brought about"
        if action is Action.REUSE:
            return f"made by application {present.created_by}, and there is no difference"
        return "is as it shall be"


_MAY_CHANGE = (Action.UPDATE, Action.RECHECK)


def _as_it_is(present: ResourceFacts, depends_on: Mapping[str, str]) -> Desired:
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


def _changes(each: Desired) -> tuple[Change, ...]:
    present = each.present
    assert present is not None  # noqa: S101 - only what exists is updated
    before, after = dict(present.params), dict(each.params)
    changes = [
        Change(param, before.get(param), after.get(param))
        for param in sorted({*before, *after})
        if before.get(param) != after.get(param)
    ]
    if present.version.id != each.version.id:
        changes.append(Change("template version", present.version.version, each.version.version))
    if present.context != each.context:
        changed = [
            part
            for part in sorted({*present.context, *each.context})
            if present.context.get(part) != each.context.get(part)
        ]
        changes += [
            Change(part, present.context.get(part), each.context.get(part)) for part in changed
        ]
    return tuple(changes)
