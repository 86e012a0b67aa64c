from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from provisioning.exceptions import ConductorError

# What JSON can hold. A recursive alias would be exact, but every reader of a document would have
# to prove to mypy again what the schema has checked.
Json: TypeAlias = Any
Part: TypeAlias = str | int

SCOPES = ("environment", "organisation", "global")
"""How far a resource that is matched by criteria may be, the nearest first."""

UNESCAPED_DOT = re.compile(r"(?<!\\)\.")


def join_path(parts: Iterable[Part]) -> str:
    r"""Write `parts` as a path; a dot inside a key is written `\.`, as in a placeholder."""
    return ".".join(str(part).replace(".", r"\.") for part in parts)


def split_path(path: str) -> list[str]:
    """Take a path of `join_path` apart; list indexes stay strings."""
    return [part.replace(r"\.", ".") for part in UNESCAPED_DOT.split(path)] if path else []


def sorted_maps(value: Json) -> Json:
    """Copy a value with the keys of all its maps in one order, whatever order a file has."""
    if isinstance(value, dict):  # not Mapping: a large plan asks a million times
        return {key: sorted_maps(value[key]) for key in sorted(value)}
    return [sorted_maps(item) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """Say what is wrong where; `line` and `column` count from 1."""

    line: int
    column: int
    path: str
    message: str
    hint: str = ""
    file: str = ""

    def __str__(self) -> str:
        """Write the problem as editors and compilers do: `file:line:column: message`."""
        place = f"{self.line}:{self.column}"
        line = f"{self.file}:{place}: {self.message}" if self.file else f"{place}: {self.message}"
        return f"{line} ({self.hint})" if self.hint else line


class ScoreError(ConductorError):
    """Refuse Score text; `problems` has every one, in the order of files and lines."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Mark(NamedTuple):
    """Locate one YAML node and the key that names it; `children` are by key or by index."""

    line: int
    column: int
    key_line: int
    key_column: int
    children: Mapping[str, Mark] | Sequence[Mark] = ()

    def child(self, part: Part) -> Mark | None:
        """Find the node under a key or an index, given as itself or as its text."""
        if isinstance(self.children, Mapping):
            return self.children.get(str(part))
        index = int(part) if str(part).isdecimal() else len(self.children)
        return self.children[index] if index < len(self.children) else None

    def find(self, parts: Iterable[Part]) -> Mark:
        """Go down as far as the document goes; the last node met is the nearest parent."""
        mark = self
        for part in parts:
            child = mark.child(part)
            if child is None:
                break
            mark = child
        return mark


@dataclass(frozen=True, slots=True)
class Matching:
    """Say which resources of others may serve a need; `match_on` None means all params.

    `scope` is one of SCOPES.
    """

    scope: Literal["environment", "organisation", "global"] = "environment"
    sharing_policy: Literal["dedicated", "shared", "conditional"] = "shared"
    match_on: tuple[str, ...] | None = None
    max_consumers: int | None = None


def widest(scopes: Iterable[str]) -> str:
    """Return the scope that reaches furthest; without any, the environment's own."""
    return max(scopes, key=SCOPES.index, default=SCOPES[0])


@dataclass(frozen=True, slots=True)
class Binding:
    """Say how an alias finds its resource; the modes are those of docs/score.md."""

    mode: Literal["private", "application", "shared", "existing", "match"]
    name: str = ""
    resource_id: str = ""
    matching: Matching | None = None
    pool: str = ""


@dataclass(frozen=True, slots=True)
class ResourceDeclaration:
    """Hold one entry of `resources`, its Conductor keys normalised and no longer in `metadata`.

    `params` and `metadata` are empty where the file has none, which agrees with any other
    declaration of the same resource. `weak_depends_on` is part of `depends_on`.
    """

    alias: str
    type: str
    class_: str
    id: str | None
    uid: str
    params: Mapping[str, Json]
    metadata: Mapping[str, Json]
    binding: Binding
    depends_on: tuple[str, ...] = ()
    weak_depends_on: tuple[str, ...] = ()
    priority: int | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """Hold one valid Score document, deprecated forms already migrated in `document`."""

    name: str
    metadata: Mapping[str, Json]
    containers: Mapping[str, Json]
    service: Mapping[str, Json]
    resources: Mapping[str, ResourceDeclaration]
    file: str
    document: Mapping[str, Json]
    marks: Mark = field(compare=False, repr=False)

    def position(self, path: str) -> tuple[int, int]:
        """Give line and column of a path like `resources.db.params.size`, or of its nearest parent.

        For a scalar it is where the value starts, for a block the key that names it.
        """
        mark = self.marks.find(split_path(path))
        return mark.line, mark.column

    def problem(self, path: str, message: str, *, hint: str = "") -> Problem:
        """Place a problem in this workload's file."""
        line, column = self.position(path)
        return Problem(line, column, path, message, hint, self.file)


def resource_uid(workload: str, alias: str, type_: str, class_: str | None, id_: str | None) -> str:
    """Name a resource inside one application, as score-go does: `type.class#id`."""
    return f"{type_}.{class_ or 'default'}#{id_ or f'{workload}.{alias}'}"
