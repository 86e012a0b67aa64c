from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from provisioning.score import semantics
from provisioning.score.binding import PREFIX, OwnKeys, bind, take_own_keys
from provisioning.score.conflicts import identity_problems
from provisioning.score.reader import RawDocument, read
from provisioning.score.schema.validation import findings, show
from provisioning.score.upgrade import upgrade
from provisioning.score.workload import (
    Json,
    Problem,
    ResourceDeclaration,
    ScoreError,
    Workload,
    resource_uid,
)

__all__ = ["Document", "ScoreError", "parse", "parse_application", "read_documents"]


@dataclass(slots=True)
class Document:
    """Hold what became of one YAML document: a workload, or the problems that prevent it.

    It starts at `line`. `name` and `uids` (by alias) are filled as far as the document gives them away, valid or not;
    `changes` says which deprecated forms were migrated.
    """

    file: str
    line: int = 1
    workload: Workload | None = None
    problems: list[Problem] = field(default_factory=list)
    name: str = ""
    uids: dict[str, str] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)


def read_documents(text: str, *, file: str = "score.yaml") -> list[Document]:
    """Read every Score document of a text, one after the other; there is always at least one."""
    documents = [
        _read_document(raw, file) for raw in read(text) if raw.value is not None or raw.problems
    ]
    if not documents:
        problem = Problem(
            1,
            1,
            "",
            "The file is empty.",
            "a Score file starts with `apiVersion: score.dev/v1b1`",
            file,
        )
        documents = [Document(file, problems=[problem])]
    return documents


def parse(text: str, *, file: str = "score.yaml") -> tuple[list[Workload], list[Problem]]:
    """Read a text into the workloads of its valid documents and all problems of the others."""
    documents = read_documents(text, file=file)
    workloads = [each.workload for each in documents if each.workload is not None]
    return workloads, [problem for each in documents for problem in each.problems]


def parse_application(files: Sequence[tuple[str, str]]) -> list[Workload]:
    """Read the files of one application, given as (file, text), in the order of their names.

    Raises ScoreError with every problem of every file, and for two workloads of one name or an
    `id` that spells another resource's implicit id.
    """
    workloads: list[Workload] = []
    problems: list[Problem] = []
    for file, text in files:
        parsed, found = parse(text, file=file)
        workloads += parsed
        problems += found
    workloads.sort(key=lambda workload: workload.name)
    problems += identity_problems(workloads)
    if problems:
        raise ScoreError(problems)
    return workloads


def _read_document(raw: RawDocument, file: str) -> Document:
    document = Document(file, raw.marks.line)
    if raw.readable and not isinstance(raw.value, dict):
        message = f"A Score file is a map, not {show(raw.value)}."
        raw.problems.append(
            raw.problem((), message, hint="start with `apiVersion: score.dev/v1b1`")
        )
    own: dict[str, OwnKeys] = {}
    if isinstance(raw.value, dict):
        document.changes = upgrade(raw)
        own = _check(raw)
        document.name, document.uids = _identify(raw.value)
    unique = {(each.line, each.column, each.path, each.message): each for each in raw.problems}
    document.problems = sorted(replace(each, file=file) for each in unique.values())
    if not document.problems:
        document.workload = build_workload(raw, own, file)
    return document


def _check(raw: RawDocument) -> dict[str, OwnKeys]:
    """Add all problems of the whole document; one that two checks see is told once."""
    plain, own = take_own_keys(raw)
    found = findings(plain, "score-v1b1.json")
    places = {finding.parts for finding in found}
    found += [
        each
        for each in semantics.check(plain, own)
        # What score-go checks of the metadata is all in the schema too.
        if each.parts not in places and each.parts[0] != "metadata"
    ]
    if found or raw.problems or any(keys.problems for keys in own.values()):
        found += semantics.check_cycle(plain, own)
    raw.problems += [
        raw.problem(each.parts, each.message, hint=each.hint, at_key=each.at_key) for each in found
    ]
    for keys in own.values():
        raw.problems += keys.problems
    return own


def _identify(document: Mapping[str, Json]) -> tuple[str, dict[str, str]]:
    """Name the workload and its resources, as far as an invalid document allows."""
    metadata, resources = document.get("metadata"), document.get("resources")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str):
        return "", {}
    uids = {}
    for alias, resource in resources.items() if isinstance(resources, dict) else ():
        if isinstance(resource, dict) and isinstance(resource.get("type"), str):
            class_, id_ = resource.get("class"), resource.get("id")
            uids[alias] = resource_uid(
                name,
                alias,
                resource["type"],
                class_ if isinstance(class_, str) else None,
                id_ if isinstance(id_, str) else None,
            )
    return name, uids


def build_workload(raw: RawDocument, own: Mapping[str, OwnKeys], file: str) -> Workload:
    """Make the workload of a document in which no check found a problem."""
    document = raw.value
    name = document["metadata"]["name"]
    return Workload(
        name=name,
        metadata=document["metadata"],
        containers=document["containers"],
        service=document.get("service", {}),
        resources={
            alias: _declaration(name, alias, resource, own[alias].values)
            for alias, resource in document.get("resources", {}).items()
        },
        file=file,
        document=document,
        marks=raw.marks,
    )


def _declaration(
    workload: str, alias: str, resource: Mapping[str, Json], own: Mapping[str, Json]
) -> ResourceDeclaration:
    class_, id_ = resource.get("class"), resource.get("id")
    depends_on = own.get("dependsOn", ())
    return ResourceDeclaration(
        alias=alias,
        type=resource["type"],
        class_=class_ or "default",
        id=id_,
        uid=resource_uid(workload, alias, resource["type"], class_, id_),
        params=resource.get("params", {}),
        metadata=_foreign_metadata(resource.get("metadata", {})),
        binding=bind(alias, id_, own),
        depends_on=tuple(dict.fromkeys(entry["resource"] for entry in depends_on)),
        weak_depends_on=tuple(
            entry["resource"] for entry in depends_on if entry.get("type") == "weak"
        ),
        priority=own.get("priority"),
    )


def _foreign_metadata(metadata: Mapping[str, Json]) -> Mapping[str, Json]:
    """Leave out Conductor's annotations: they are in the binding."""
    annotations = metadata.get("annotations")
    if not annotations or not any(name.startswith(PREFIX) for name in annotations):
        return metadata
    kept = {name: annotations[name] for name in annotations if not name.startswith(PREFIX)}
    rest = {key: metadata[key] for key in metadata if key != "annotations"}
    return {**rest, "annotations": kept} if kept else rest
