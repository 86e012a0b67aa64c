from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from provisioning.score.placeholders import (
    PlaceholderError,
    Reference,
    look_up,
    parse_reference,
    substitute,
)
from provisioning.score.schema.validation import show
from provisioning.score.semantics import placeholders_in
from provisioning.score.workload import (
    Binding,
    Json,
    Part,
    Problem,
    ResourceDeclaration,
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
        problems += _conflicts(uid, declared)
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


Declared = list[tuple[Workload, ResourceDeclaration]]


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
        params=next((each.params for w, each in declared if _gives(w, each, "params")), None),
        metadata=next((each.metadata for w, each in declared if _gives(w, each, "metadata")), None),
        binding=first.binding,
        declared_by=tuple((workload.name, each.alias) for workload, each in declared),
    )


def _gives(workload: Workload, declaration: ResourceDeclaration, key: str) -> bool:
    return key in workload.document["resources"][declaration.alias]


def identity_problems(workloads: Iterable[Workload]) -> list[Problem]:
    """List what makes workloads unfit to be one application: equal names, and taken ids."""
    problems = []
    named: dict[str, Workload] = {}
    private: dict[str, tuple[Workload, ResourceDeclaration]] = {}
    workloads = list(workloads)
    for workload in workloads:
        if workload.name in named:
            line, _ = named[workload.name].position("metadata.name")
            other = f"{named[workload.name].file}:{line}"
            message = f"The name `{workload.name}` is already that of the workload in {other}."
            hint = "give each workload of an application its own name"
            problems.append(workload.problem("metadata.name", message, hint=hint))
        named.setdefault(workload.name, workload)
        for declaration in workload.resources.values():
            if declaration.id is None:
                private[declaration.uid] = (workload, declaration)
    return problems + [
        _hijack(workload, declaration, *private[declaration.uid])
        for workload in workloads
        for declaration in workload.resources.values()
        if declaration.id is not None and declaration.uid in private
    ]


def _hijack(
    taker: Workload, taken: ResourceDeclaration, owner: Workload, own: ResourceDeclaration
) -> Problem:
    line, _ = owner.position(f"resources.{own.alias}")
    return taker.problem(
        f"resources.{taken.alias}.id",
        f"The id `{taken.id}` of `{taken.alias}` in workload `{taker.name}` spells the private "
        f"resource `{own.alias}` of workload `{owner.name}` ({owner.file}:{line}).",
        hint=f"choose another id, and give it to `{own.alias}` too if the two are to be shared",
    )


def _conflicts(uid: str, declared: Declared) -> Iterator[Problem]:
    """Compare the declarations of one resource: each with the first that says anything."""
    yield from _differences(uid, "params", [each for each in declared if _gives(*each, "params")])
    speaking = [each for each in declared if _gives(*each, "metadata")]
    yield from _differences(uid, "metadata", speaking)
    workload, first = declared[0]
    for other, declaration in declared[1:]:
        if declaration.binding != first.binding:
            line, _ = workload.position(f"resources.{first.alias}")
            yield other.problem(
                f"resources.{declaration.alias}",
                f"{uid} is bound differently: as {first.binding.mode} in workload "
                f"`{workload.name}` ({workload.file}:{line}), as {declaration.binding.mode} in "
                f"workload `{other.name}`.",
                hint="give both the same Conductor keys, or different ids",
            )


def _differences(uid: str, key: str, declared: Declared) -> Iterator[Problem]:
    if len(declared) < 2:
        return
    workload, first = declared[0]
    mine = getattr(first, key)
    bound = bind_references(workload, mine) if key == "params" else mine
    for other, declaration in declared[1:]:
        theirs = getattr(declaration, key)
        other_bound = bind_references(other, theirs) if key == "params" else theirs
        for parts in _differing(bound, other_bound):
            here = ("resources", declaration.alias, key, *parts)
            there = ("resources", first.alias, key, *parts)
            line, _ = workload.position(join_path(there))
            own_line, _ = other.position(join_path(here))
            yield other.problem(
                join_path(here),
                f"{uid} is declared with different {key}: `{join_path(parts)}` is "
                f"{_say(mine, bound, parts)} in workload `{workload.name}` "
                f"({workload.file}:{line}) and {_say(theirs, other_bound, parts)} in workload "
                f"`{other.name}` ({other.file}:{own_line}).",
                hint="give both the same value, leave it out of one, or give different ids",
            )


def bind_references(workload: Workload, params: Json) -> Json:
    """Write each reference as what it means, so that equal params are equal in every workload.

    A reference to a resource becomes its uid and keys between NUL characters, which no Score file
    can hold, and one to the metadata its value.
    """

    def meaning(reference: Reference) -> Json:
        if reference.alias in workload.resources:
            uid = workload.resources[reference.alias].uid
            return "\0" + "\0".join((uid, *reference.keys)) + "\0\0"
        try:
            return look_up(workload.metadata, reference.keys, reference)
        except PlaceholderError:
            return f"\0metadata of {workload.name}\0{reference.text}\0\0"

    return substitute(params, meaning, aliases=workload.resources)


MISSING = object()


def _differing(one: Json, other: Json, parts: tuple[Part, ...] = ()) -> Iterator[tuple[Part, ...]]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in sorted({*one, *other}):
            yield from _differing(one.get(key, MISSING), other.get(key, MISSING), (*parts, key))
    elif type(one) is not type(other) or one != other:
        yield parts


def _say(raw: Json, bound: Json, parts: tuple[Part, ...]) -> str:
    for part in parts:
        raw = raw.get(part, MISSING) if isinstance(raw, Mapping) else MISSING
        bound = bound.get(part, MISSING) if isinstance(bound, Mapping) else MISSING
    if raw is MISSING:
        return "not given"
    targets = sorted(set(_uids(bound)))
    return f"{show(raw)} of {', '.join(targets)}" if targets else show(raw)


def _uids(bound: Json) -> Iterator[str]:
    for match in str(bound).split("\0\0") if isinstance(bound, str) else ():
        if "\0" in match:
            yield match.split("\0")[1]
