from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

import yaml

from provisioning.score.workload import Json, Mark, Part, Problem, join_path

MAX_CHARACTERS = 16_000_000
# Without aliases a value takes a character at least; with them it may be used this much oftener.
ALIASED_NODES = 100_000
MAX_DEPTH = 100

CORE = "tag:yaml.org,2002:"
CORE_SCALARS = {
    "null": (r"~|null|Null|NULL|", "~nN\0"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(?:(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
}
BASES = {"0o": 8, "0x": 16}
TRUTHS = {"true": True, "false": False}


REMEDIES = {
    "tab character": "indent with spaces, not tabs",
    "cannot start any token": (
        "indent with spaces, not tabs, and put text that starts with @ or ` in quotes"
    ),
    "mapping values are not allowed": "put text that contains a colon and a space in quotes",
    "could not find expected ':'": "a key is followed by a colon and a space",
    "undefined alias": "put text that starts with * in quotes",
}


class UnreadableError(Exception):
    """Stop reading a document at a place that no later line can make good."""

    def __init__(self, message: str, mark: yaml.Mark | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.mark, self.hint = mark, hint


class CoreLoader(yaml.CSafeLoader):
    """Compose nodes with libyaml, resolving plain scalars by the YAML 1.2 core schema.

    PyYAML's own resolver follows YAML 1.1, where `no` is false and `12:30` is 750. libyaml's
    composer recurses in C without a limit, so the depth is counted here, where it asks for a tag.
    """

    yaml_implicit_resolvers = {}
    depth = 0

    def descend_resolver(self, parent: yaml.Node | None, _index: object) -> None:
        """Count one level down."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            message = f"The document is nested more than {MAX_DEPTH} levels deep."
            raise UnreadableError(message, parent.start_mark if parent else None)

    def ascend_resolver(self) -> None:
        """Count one level up."""
        self.depth -= 1


for tag, (pattern, first) in CORE_SCALARS.items():
    first_characters = ["" if each == "\0" else each for each in first]
    CoreLoader.add_implicit_resolver(CORE + tag, re.compile(rf"(?:{pattern})\Z"), first_characters)


@dataclass(slots=True)
class RawDocument:
    """Hold one YAML document as plain data, with the place of everything in it."""

    value: Json
    marks: Mark
    problems: list[Problem] = field(default_factory=list)
    readable: bool = True

    def problem(
        self, parts: tuple[Part, ...], message: str, *, hint: str = "", at_key: bool = False
    ) -> Problem:
        """Place a problem at a value, or at the key that names it."""
        mark = self.marks.find(parts)
        line, column = (mark.key_line, mark.key_column) if at_key else (mark.line, mark.column)
        return Problem(line, column, join_path(parts), message, hint)


def read(text: str) -> Iterator[RawDocument]:
    """Read every YAML document of `text`.

    An unreadable document is the last one: what follows a syntax error cannot be trusted.
    """
    text = text.removeprefix("\ufeff")
    if len(text) > MAX_CHARACTERS:
        yield _unreadable(
            f"The file has {len(text):,} characters; {MAX_CHARACTERS:,} are read at most."
        )
        return
    try:
        loader = CoreLoader(text)
    except UnicodeEncodeError as error:
        yield _unreadable("The file has half a surrogate pair, which is no character.", str(error))
        return
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is not None:
                yield _Construction(nodes_left=len(text) + ALIASED_NODES).document(node)
    except yaml.MarkedYAMLError as error:
        yield _syntax_error(error)
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        yield _unreadable(
            f"The character {chr(error.character)!r} is not allowed in YAML.",
            line=before.count("\n") + 1,
            column=len(before) - before.rfind("\n"),
        )
    except UnreadableError as error:
        yield _unreadable(str(error), error.hint, *_place(error.mark))
    finally:
        loader.dispose()


def _place(mark: yaml.Mark | None) -> tuple[int, int]:
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _unreadable(message: str, hint: str = "", line: int = 1, column: int = 1) -> RawDocument:
    mark = Mark(line, column, line, column)
    return RawDocument(None, mark, [Problem(line, column, "", message, hint)], readable=False)


def _syntax_error(error: yaml.MarkedYAMLError) -> RawDocument:
    line, column = _place(error.problem_mark or error.context_mark)
    said = error.problem or str(error)
    hint = next((hint for words, hint in REMEDIES.items() if words in said), "")
    return _unreadable(f"This is not YAML: {said}.", hint, line, column)


@dataclass(slots=True)
class _Construction:
    """Turn one document's nodes into plain data and marks, within a number of nodes."""

    nodes_left: int
    open_nodes: set[int] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    def document(self, node: yaml.Node) -> RawDocument:
        """Build the whole document, with all its duplicate keys and odd tags reported."""
        value, marks = self.build(node, (), node.start_mark)
        return RawDocument(value, marks, self.problems)

    def build(self, node: yaml.Node, parts: tuple[Part, ...], key: yaml.Mark) -> tuple[Json, Mark]:
        """Build a node that the key at `key` names."""
        self.nodes_left -= 1
        if self.nodes_left < 0:
            raise UnreadableError(
                "The document's aliases make it too large.",
                node.start_mark,
            )
        if isinstance(node, yaml.ScalarNode):
            start = node.start_mark if node.value else key
            mark = Mark(start.line + 1, start.column + 1, key.line + 1, key.column + 1)
            return self.scalar(node, parts), mark
        if id(node) in self.open_nodes or len(parts) > MAX_DEPTH:
            raise UnreadableError("An alias contains itself.", key)
        self.open_nodes.add(id(node))
        value: Json
        children: Mapping[str, Mark] | Sequence[Mark]
        if isinstance(node, yaml.MappingNode):
            value, children = self.mapping(node, parts)
        else:
            value, children = self.sequence(node, parts)
        self.open_nodes.discard(id(node))
        in_braces = isinstance(node, yaml.CollectionNode) and node.flow_style
        start = node.start_mark if in_braces else key
        return value, Mark(start.line + 1, start.column + 1, key.line + 1, key.column + 1, children)

    def sequence(self, node: yaml.Node, parts: tuple[Part, ...]) -> tuple[list[Json], list[Mark]]:
        """Build a list."""
        self.check_tag(node, "seq", parts)
        values, marks = [], []
        for index, item in enumerate(node.value):
            value, mark = self.build(item, (*parts, index), item.start_mark)
            values.append(value)
            marks.append(mark)
        return values, marks

    def mapping(
        self, node: yaml.MappingNode, parts: tuple[Part, ...]
    ) -> tuple[dict[str, Json], dict[str, Mark]]:
        """Build a map; keys merged in with `<<` give way to the map's own, as in score-go."""
        self.check_tag(node, "map", parts)
        values: dict[str, Json] = {}
        marks: dict[str, Mark] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.value == "<<" and not key_node.style:
                merged.append(value_node)
                continue
            key = self.key(key_node, parts)
            if key in values:
                first = marks[key].key_line
                self.report(
                    key_node,
                    (*parts, key),
                    f"The key `{key}` stands twice in this map: first in line {first}.",
                    "keep one of the two",
                )
            value, mark = self.build(value_node, (*parts, key), key_node.start_mark)
            values.setdefault(key, value)
            marks.setdefault(key, mark)
        for merge in merged:
            self.merge(merge, parts, values, marks)
        return values, marks

    def merge(
        self,
        node: yaml.Node,
        parts: tuple[Part, ...],
        values: dict[str, Json],
        marks: dict[str, Mark],
    ) -> None:
        """Add the keys of `<<: *alias` or `<<: [*one, *two]` that are not there yet."""
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for source in sources:
            value, mark = self.build(source, parts, source.start_mark)
            if not isinstance(value, dict) or not isinstance(mark.children, dict):
                self.report(source, parts, "`<<` takes a map, or a list of maps.")
                continue
            for key in value:
                values.setdefault(key, value[key])
                marks.setdefault(key, mark.children[key])

    def key(self, node: yaml.Node, parts: tuple[Part, ...]) -> str:
        """Read a key, which is text in everything that is also JSON."""
        if isinstance(node, yaml.ScalarNode) and node.tag == CORE + "str":
            self.check_text(node, (*parts, node.value))
            return str(node.value)
        if not isinstance(node, yaml.ScalarNode):
            raise UnreadableError("A key must be text, not a list or a map.", node.start_mark)
        self.report(
            node,
            (*parts, node.value),
            f"The key {node.value or 'null'} is not text.",
            f'write it in quotes: "{node.value}"',
        )
        return str(node.value)

    def scalar(self, node: yaml.ScalarNode, parts: tuple[Part, ...]) -> Json:
        """Read a scalar by the tag that the core schema, or the file, gives it."""
        text, kind = str(node.value), node.tag.removeprefix(CORE)
        if kind == "str":
            self.check_text(node, parts)
            return text
        if kind not in CORE_SCALARS:
            self.report(node, parts, f"The tag {node.tag} has no meaning here.", "leave it out")
            return text
        try:
            return _SCALARS[kind](text)
        except (ValueError, KeyError):
            self.report(node, parts, f"{text[:40]} is not a value that JSON has.", "use quotes")
            return text

    def check_text(self, node: yaml.ScalarNode, parts: tuple[Part, ...]) -> None:
        """Report the one character that YAML can write and PostgreSQL cannot store."""
        if "\0" in node.value:
            self.report(node, parts, r"The character \0 cannot be stored.", "leave it out")

    def check_tag(self, node: yaml.Node, expected: str, parts: tuple[Part, ...]) -> None:
        """Report tags such as `!!set`, which would change what a list or map means."""
        if node.tag != CORE + expected:
            self.report(node, parts, f"The tag {node.tag} has no meaning here.", "leave it out")

    def report(
        self, node: yaml.Node, parts: tuple[Part, ...], message: str, hint: str = ""
    ) -> None:
        """Keep a problem and read on."""
        line, column = _place(node.start_mark)
        self.problems.append(Problem(line, column, join_path(parts), message, hint))


def _integer(text: str) -> int:
    return int(text, BASES.get(text[:2], 10))


def _number(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(text)
    return number


_SCALARS = {
    "null": lambda _text: None,
    "bool": lambda text: TRUTHS[text.lower()],
    "int": _integer,
    "float": _number,
}
