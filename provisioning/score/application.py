from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from provisioning.score.conflicts import Declared, conflicts, gives, identity_problems
from provisioning.score.placeholders import Reference, parse_reference
from provisioning.score.semantics import placeholders_in
from provisioning.score.workload import (
    Binding,
    Json,
    Part,
    Problem,
    ScoreError,
    Workload,
    join_path,
)


@dataclass(frozen=True, slots=True)
class Use:
    """Hold one reference of a workload and where it stands.

    `in_params_of` is the alias whose params hold it, empty for the workload's own use. `text` is
    what a person wrote: the placeholder, or the entry of `dependsOn`.
    """

    workload: str
    file: str
    path: str
    line: int
    column: int
    text: str
    reference: Reference
    in_params_of: str = ""


@dataclass(frozen=True, slots=True)
class BoundResource:
    """Hold one resource of an application, on which all its declarations agree.

    `params` is None if no declaration gives any; `declared_by` has (workload, alias) pairs.
    """

    uid: str
    type: str
    class_: str
    id: str
    params: Mapping[str, Json] | None
    metadata: Mapping[str, Json] | None
    binding: Binding
    declared_by: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Application:
    """Hold the resources that several workloads need together, and which needs which.

    An edge is (source, target), source needs target; `uses` has the places that make each edge.
    """

    resources: Mapping[str, BoundResource]
    edges: tuple[tuple[str, str], ...]
    uses: Mapping[tuple[str, str], tuple[Use, ...]]

    def cycle_error(self, path: Sequence[str]) -> ScoreError:
        """Explain a cycle, given as uids of which the last is the first, by its references."""
        uses = [self.uses[edge][0] for edge in pairwise(path)]
        places = ", ".join(f"`{use.text}` in {use.file}:{use.line}" for use in uses)
        problem = Problem(
            uses[0].line,
            uses[0].column,
            uses[0].path,
            f"These resources need one another, so none can be first: {' → '.join(path)}. "
            f"The references are {places}.",
            "take one of the references out",
            uses[0].file,
        )
        return ScoreError([problem])


def uses_of(workload: Workload) -> Iterator[Use]:
    """Find every reference of a workload, in its containers, params and `dependsOn`.

    This is what to check outputs against: `use.reference.alias` and `use.reference.keys`.
    """
    for (parts, text), in_params in placeholders_in(workload.document):
        reference = parse_reference(text, aliases=workload.resources if in_params else ())
        alias = str(parts[1]) if in_params else ""
        yield _use(workload, parts, f"${{{text}}}", reference, alias)
    for alias, declaration in workload.resources.items():
        for other in declaration.depends_on:
            parts = ("resources", alias, "dependsOn")
            if "dependsOn" not in workload.document["resources"][alias]:
                parts = ("resources", alias, "metadata", "annotations", "conductor.dev/dependsOn")
            yield _use(
                workload,
                parts,
                f"dependsOn: {other}",
                Reference(("resources", other), other),
                alias,
            )


def _use(
    workload: Workload, parts: tuple[Part, ...], text: str, reference: Reference, alias: str
) -> Use:
    mark = workload.marks.find(parts)
    return Use(
        workload.name,
        workload.file,
        join_path(parts),
        mark.line,
        mark.column,
        text,
        reference,
        alias,
    )


def bind_application(workloads: Iterable[Workload]) -> Application:
    """Bring the workloads' resources together: every uid once, with all that any declares.

    The result is the same in whatever order the workloads come. Raises ScoreError for two
    workloads of one name, an `id` that takes another's private resource, and declarations of one
    resource that differ in params, metadata or binding.
    """
    workloads = sorted(workloads, key=lambda workload: (workload.name, workload.file))
    problems = identity_problems(workloads)
    if problems:
        raise ScoreError(problems)
    declarations = _declarations(workloads)
    for uid, declared in declarations.items():
        problems += conflicts(uid, declared)
    if problems:
        raise ScoreError(problems)
    uses: dict[tuple[str, str], list[Use]] = defaultdict(list)
    for workload in workloads:
        for use in uses_of(workload):
            if use.in_params_of and use.reference.alias:
                source = workload.resources[use.in_params_of].uid
                uses[source, workload.resources[use.reference.alias].uid].append(use)
    return Application(
        resources={uid: _bound(uid, declarations[uid]) for uid in sorted(declarations)},
        edges=tuple(sorted(uses)),
        uses={edge: tuple(uses[edge]) for edge in sorted(uses)},
    )


def _declarations(workloads: Iterable[Workload]) -> dict[str, Declared]:
    declarations: dict[str, Declared] = defaultdict(list)
    for workload in workloads:
        for alias in sorted(workload.resources):
            declarations[workload.resources[alias].uid].append(
                (workload, workload.resources[alias])
            )
    return declarations


def _bound(uid: str, declared: Declared) -> BoundResource:
    _, first = declared[0]
    return BoundResource(
        uid=uid,
        type=first.type,
        class_=first.class_,
        id=uid.partition("#")[2],
        params=next((each.params for w, each in declared if gives(w, each, "params")), None),
        metadata=next((each.metadata for w, each in declared if gives(w, each, "metadata")), None),
        binding=first.binding,
        declared_by=tuple((workload.name, each.alias) for workload, each in declared),
    )
