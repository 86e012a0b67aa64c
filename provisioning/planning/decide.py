"""Decide: Workloads and a Snapshot become a Plan. Pure, and the same in any order of its inputs."""

from __future__ import annotations

import difflib
import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace

from provisioning.graph.build import CycleError, order
from provisioning.planning.addresses import environment_of
from provisioning.planning.assembly import Assembly, is_own
from provisioning.planning.availability import availability_problems
from provisioning.planning.components import expanded, need_output_problems
from provisioning.planning.desired import (
    Desired,
    as_it_is,
    desired_resources,
    refreshed,
    without_leaving,
)
from provisioning.planning.facts import ConsumerFacts, ResourceFacts, Snapshot, VersionFacts
from provisioning.planning.lifecycle import edges_after
from provisioning.planning.plan import (
    Plan,
    PlanError,
)
from provisioning.planning.questions import closed_problems
from provisioning.planning.requirements import Requirement, requirements_of
from provisioning.planning.users import USES_CONSUMERS
from provisioning.planning.validation import (
    ParamChecks,
    container_output_problems,
    output_problems,
)
from provisioning.planning.validators import demands_after, validator_problems
from provisioning.planning.wishes import looked_at
from provisioning.score.placeholders import references
from provisioning.score.workload import Problem, Workload


def decide(
    workloads: Sequence[Workload],
    snapshot: Snapshot,
    *,
    upgrade: bool = False,
    shrink: bool = False,
) -> Plan:
    """Plan the deployment of these workloads; the application's others stay as they are.

    With `upgrade`, resources that this application made move to their template's newest version.
    With `shrink`, parameters shrink to what is still asked for where the template only proposes it.
    Raises PlanError with every reason why it cannot be done.
    """
    problems: list[Problem] = []
    workloads = sorted(workloads, key=lambda workload: workload.name)
    names = [workload.name for workload in workloads]
    declared = requirements_of(workloads, snapshot, problems)
    staying = _staying(names, snapshot)
    requirements = expanded(declared, staying, snapshot, upgrade=upgrade, problems=problems)
    desired = desired_resources(
        requirements,
        _by_key(staying),
        workloads,
        snapshot,
        upgrade=upgrade,
        shrink=shrink,
        problems=problems,
    )
    problems += closed_problems(requirements, snapshot)
    demands = demands_after(requirements, staying, desired, snapshot)
    problems += validator_problems(requirements, _by_key(staying), desired, demands, snapshot)
    _validate(workloads, requirements, desired, snapshot, problems)
    if problems:
        raise PlanError(_in_order(problems))
    for key, present in snapshot.resources.items():
        looks = set(present.version.uses) - {USES_CONSUMERS}
        if key not in desired and looks and is_own(present, snapshot):
            _refresh(present, workloads, snapshot, desired)
    left = _left(names, staying, snapshot, desired, {each.key for each in requirements})
    plan = Assembly(
        "deploy",
        names,
        requirements,
        staying,
        desired,
        snapshot,
        left=left,
        looked_at=looked_at(requirements, desired, demands, snapshot),
    ).plan()
    _refuse_missing_tools(plan, snapshot)
    return plan


def decide_teardown(names: Sequence[str] | None, snapshot: Snapshot) -> Plan:
    """Plan the removal of these workloads, or of all the application has in the environment.

    Works from the stored graph alone. Raises PlanError for a workload that is not there, and for a
    tool that no worker has.
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
    staying = _staying(chosen, snapshot)
    desired: dict[str, Desired] = {}
    left = _left(chosen, staying, snapshot, desired, frozenset())
    plan = Assembly("teardown", chosen, [], staying, desired, snapshot, left=left).plan()
    _refuse_missing_tools(plan, snapshot)
    return plan


def _left(
    names: Sequence[str],
    staying: Sequence[ConsumerFacts],
    snapshot: Snapshot,
    desired: dict[str, Desired],
    required: Set[str],
) -> dict[str, Desired]:
    """Settle again what these workloads leave to others; desire what changes, return what does not."""
    by_key = _by_key(staying)
    leaving = {
        consumer.key
        for consumer in snapshot.consumers
        if consumer.application == snapshot.application and consumer.workload in names
    }
    left = {}
    for key in sorted((leaving & by_key.keys() & snapshot.resources.keys()) - required):
        now = desired.get(key)
        present = snapshot.resources[key]
        if present.deleting:
            continue
        context = now.context if now else present.context
        settled = without_leaving(present, by_key[key], snapshot, context)
        if settled.spec_digest != present.spec_digest:
            desired[key] = settled
        else:
            left[key] = settled
    return left


def _refuse_missing_tools(plan: Plan, snapshot: Snapshot) -> None:
    """Refuse work on what exists if no worker can do it; for what is new, its line was told."""
    steps = {step.key: step.action for step in plan.steps}
    problems = [
        Problem(
            1,
            1,
            "",
            f"{each.uid} cannot be {'destroyed' if steps[each.key] == 'destroy' else 'changed'}: the "
            f"template {each.template.name} needs {tool}, which is installed on no worker of the "
            f"environment {environment_of(each.key) or snapshot.environment}.",
            f"install {tool} where the worker runs and start the worker again",
        )
        for each in plan.resources
        if each.key in steps
        and (tool := snapshot.around(each.key).missing_tools.get(each.template.driver))
    ]
    if problems:
        raise PlanError(problems)


def _validate(
    workloads: Sequence[Workload],
    requirements: Sequence[Requirement],
    desired: Mapping[str, Desired],
    snapshot: Snapshot,
    problems: list[Problem],
) -> None:
    elsewhere = snapshot.elsewhere.values()
    has_defaults = bool(snapshot.defaults) or any(each.defaults for each in elsewhere)
    checks = ParamChecks(later=has_defaults)
    versions: dict[str, VersionFacts] = {key: each.version for key, each in desired.items()}
    aliases: dict[str, dict[str, str]] = defaultdict(dict)
    merged: dict[str, Requirement] = {}
    for requirement in requirements:
        aliases[requirement.workload.name][requirement.declaration.alias] = requirement.key
    for requirement in requirements:
        of_workload = aliases[requirement.workload.name]
        if requirement.key in desired and _sets_params(requirement, desired[requirement.key]):
            problems.extend(checks.problems(requirement, versions[requirement.key]))
            if versions[requirement.key].merge_rules:
                merged.setdefault(requirement.key, requirement)
        if requirement.key in desired and has_defaults:
            merged.setdefault(requirement.key, requirement)
        if requirement.params:
            problems.extend(output_problems(requirement, of_workload, versions))
    if not problems:
        for key, requirement in merged.items():
            inputs = desired[key].inputs
            params = {k: v for k, v in desired[key].params.items() if k not in inputs}
            problems.extend(checks.merged_problems(requirement, params, versions[key]))
    for workload in workloads:
        problems.extend(container_output_problems(workload, aliases[workload.name], versions))
    inputs = {key: each.inputs for key, each in desired.items() if each.inputs}
    problems.extend(need_output_problems(requirements, versions, inputs))
    problems.extend(availability_problems(requirements, desired, snapshot))
    edges = edges_after(desired, snapshot)
    try:
        order(set(snapshot.resources) | set(desired), edges)
    except CycleError as error:
        problems.append(_cycle_problem(error, requirements))


def _sets_params(requirement: Requirement, desired: Desired) -> bool:
    """Tell whether a requirement must satisfy the schema: it names params, or nobody else does.

    The params of a pool's members were checked when the pool was made.
    """
    if requirement.pool is not None:
        return False
    return requirement.params is not None or not desired.params.keys() - desired.inputs.keys()


def _cycle_problem(error: CycleError, requirements: Sequence[Requirement]) -> Problem:
    """Place a cycle at its first reference, and name the place of each."""
    places = []
    for source, target in itertools.pairwise(error.path):
        for each in requirements:
            if each.key == source and target in each.depends_on:
                path = _reference_path(each, target)
                places.append((each.workload, path, each.workload.position(path)[0]))
                break
    listed = "; ".join(f"{workload.file}:{line}" for workload, _, line in places)
    workload, path, _ = places[0]
    return workload.problem(path, f"{error} The references are at {listed}.")


def _reference_path(requirement: Requirement, target: str) -> str:
    for below, reference in references(requirement.params):
        if reference.alias == target:
            return f"{requirement.path}.params.{below}"
    return f"{requirement.path}.dependsOn"


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
        now = as_it_is(present, depends_on)
        desired[present.key] = replace(now, context=context, spec_digest=digest)


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
