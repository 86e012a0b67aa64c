from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from provisioning.score.placeholders import PlaceholderError, Reference, look_up, substitute
from provisioning.score.schema.validation import show
from provisioning.score.workload import (
    Json,
    Part,
    Problem,
    ResourceDeclaration,
    Workload,
    join_path,
)

Declared = list[tuple[Workload, ResourceDeclaration]]
MISSING = object()


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


def gives(workload: Workload, declaration: ResourceDeclaration, key: str) -> bool:
    """Say whether a declaration has `params` or `metadata` at all, be it empty.

    Metadata of which nothing is left without Conductor's annotations says nothing.
    """
    written = workload.document["resources"][declaration.alias].get(key)
    return written is not None and (not written or bool(getattr(declaration, key)))


def conflicts(uid: str, declared: Declared) -> Iterator[Problem]:
    """Compare the declarations of one resource: each with the first that says anything."""
    yield from _differences(uid, "params", [each for each in declared if gives(*each, "params")])
    speaking = [each for each in declared if gives(*each, "metadata")]
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
