from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from provisioning.exceptions import ConductorError
from provisioning.score.workload import Json, Part, join_path

ROOTS = ("resources", "metadata")
OWN_DOT = "\0"
PLACEHOLDER = re.compile(r"\$(?:(?P<escaped>\$(?:\{[^}]*\})?)|\{(?P<text>[^}]*)\})")
# `/` stands in the names of annotations, `#` in the keys of resources that bound references name.
WELL_FORMED = re.compile(r"(?:[A-Za-z0-9_/#-]|\\\.)+(?:\.(?:[A-Za-z0-9_/#-]|\\\.)+)+")
ESCAPED_IN_JSON = {
    "<": r"\u003c",
    ">": r"\u003e",
    "&": r"\u0026",
    "\u2028": r"\u2028",
    "\u2029": r"\u2029",
}


class PlaceholderError(ConductorError):
    """Refuse a placeholder that is malformed, or that nothing gives a value for."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Reference:
    """Hold what stands between `${` and `}`: as `text`, and as `parts` from the root on."""

    parts: tuple[str, ...]
    text: str

    @property
    def alias(self) -> str:
        """Name the resource that is meant, or nothing if it is the workload's metadata."""
        return self.parts[1] if self.parts[0] == "resources" else ""

    @property
    def keys(self) -> tuple[str, ...]:
        """Give the way to the value: the output and keys below it, or keys of the metadata."""
        return self.parts[2:] if self.parts[0] == "resources" else self.parts[1:]


def parse_reference(text: str, *, aliases: Collection[str] = frozenset()) -> Reference:
    r"""Read the inside of a placeholder: parts between dots, where `\.` is a dot of a part's own.

    `aliases` are the resources that may also be named without `resources.` in front.
    Raises PlaceholderError.
    """
    parts = _parts(text)
    if parts[0] in ROOTS:
        return Reference(parts, text)
    if parts[0] in aliases:
        return Reference(("resources", *parts), text)
    raise PlaceholderError(
        f'The placeholder ${{{text}}} has unsupported first element "{parts[0]}": it must be '
        "`resources` or `metadata`.",
        hint="write $$ for a dollar sign",
    )


@functools.lru_cache(maxsize=1 << 16)  # planning reads each reference several times
def _parts(text: str) -> tuple[str, ...]:
    if not WELL_FORMED.fullmatch(text):
        raise malformed_placeholder(text)
    return tuple(part.replace(OWN_DOT, ".") for part in text.replace(r"\.", OWN_DOT).split("."))


def malformed_placeholder(text: str) -> PlaceholderError:
    """Make the error for the inside of a placeholder that is not names with dots between them."""
    return PlaceholderError(
        f"The placeholder ${{{text}}} is malformed: it takes two or more names with dots between "
        "them, each of letters, digits, `_` and `-`.",
        hint=r"write $$ for a dollar sign, and \. for a dot inside a name",
    )


def placeholders(
    value: Json, parts: tuple[Part, ...] = ()
) -> Iterator[tuple[tuple[Part, ...], str]]:
    """Find every unescaped placeholder in the strings of maps and lists: its place, its inside."""
    if isinstance(value, str):
        for match in PLACEHOLDER.finditer(value) if "$" in value else ():
            if match["escaped"] is None:
                yield parts, match["text"]
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from placeholders(item, (*parts, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from placeholders(item, (*parts, index))


def references(
    value: Json, *, aliases: Collection[str] = frozenset()
) -> Iterator[tuple[str, Reference]]:
    """Find every reference in the strings of maps and lists, with its path inside `value`.

    Raises PlaceholderError.
    """
    for parts, text in placeholders(value):
        yield join_path(parts), parse_reference(text, aliases=aliases)


def substitute(
    value: Json,
    lookup: Callable[[Reference], Json],
    *,
    aliases: Collection[str] = frozenset(),
) -> Json:
    """Replace the placeholders in every string of maps and lists; other values stay themselves.

    As in score-go the result is always text: what `lookup` gives is written as JSON unless it is
    a string, `$$` becomes `$`, and `$${…}` becomes `${…}`.
    Raises PlaceholderError, also whatever `lookup` raises.
    """
    if isinstance(value, str):
        return _substitute_text(value, lookup, aliases) if "$" in value else value
    if isinstance(value, Mapping):
        return {key: substitute(item, lookup, aliases=aliases) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [substitute(item, lookup, aliases=aliases) for item in value]
    return value


def _substitute_text(
    text: str, lookup: Callable[[Reference], Json], aliases: Collection[str]
) -> str:
    def replacement(match: re.Match[str]) -> str:
        escaped = match["escaped"]
        if escaped is not None:
            return escaped
        return as_text(lookup(parse_reference(match["text"], aliases=aliases)))

    return PLACEHOLDER.sub(replacement, text)


def as_text(value: Json) -> str:
    """Write an output the way a placeholder shows it: text as itself, the rest as Go writes JSON.

    Go sorts keys, writes 2.0 as 2 and escapes the characters that HTML and JavaScript treat
    specially.
    """
    if isinstance(value, str):
        return value
    text = json.dumps(_whole(value), separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    return re.sub("[<>&\u2028\u2029]", lambda match: ESCAPED_IN_JSON[match[0]], text)


def _whole(value: Json) -> Json:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return int(value)
    if isinstance(value, Mapping):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_whole(item) for item in value]
    return value


def look_up(root: Json, keys: tuple[str, ...], reference: Reference) -> Json:
    """Follow `keys` down into outputs or metadata; raises PlaceholderError where they end."""
    value = root
    for depth, key in enumerate(keys):
        if not isinstance(value, Mapping):
            found = ".".join(keys[:depth])
            raise PlaceholderError(
                f"The placeholder ${{{reference.text}}} has no value: `{found}` holds no `{key}`, "
                "it is not a map."
            )
        if key not in value:
            known = ", ".join(sorted(map(str, value))) or "nothing"
            raise PlaceholderError(
                f"The placeholder ${{{reference.text}}} has no value: there is no `{key}`.",
                hint=f"there is {known}",
            )
        value = value[key]
    return value
