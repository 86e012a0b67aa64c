"""Take the secrets of one run out of texts, in every form in which tools write them.

A secret is found as it is, as JSON writes it (also `\\u` escapes, and JSON within JSON), as URLs
write it, and in base64 at each of the three places where it can begin in what was encoded.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import ahocorasick

from provisioning.drivers.output import printable
from provisioning.services.outputs import MASK

SHORT = 4
"""Values with fewer characters are masked only where they stand alone."""
WRAPPED_AT = (64, 76)
"""Where tools break the lines of long base64."""

_ALWAYS_ITSELF = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._")
_BASE64_WAYS = {"+": ("+", "-", "%2B", "%2b"), "/": ("/", "_", "\\/", "%2F", "%2f")}
_PADDING = "(?:=|%3[dD]){0,2}"
_LONGEST_END = 12

Ways = tuple[str, ...]
"""How one character may be written. None of them begins with another, so a search never goes back."""


class Mask:
    """Know the secrets of one run, and take them out of texts.

    A secret of several lines is masked line by line, so that no secret ever spans a line's end.
    """

    def __init__(self) -> None:
        self._secrets: set[str] = set()
        self._forms: dict[str, set[_Form]] = {}
        self._anchors: ahocorasick.Automaton | None = None
        self.longest = 0

    def add(self, value: Any) -> None:
        """Learn a secret: a text, a number, or every such value in a list or an object."""
        for secret in {text.strip() for text in _texts(value)} - self._secrets - {""}:
            self._secrets.add(secret)
            for form in _forms(secret):
                self._forms.setdefault(form.anchor, set()).add(form)
                self._anchors = None
                self.longest = max(self.longest, form.longest)

    @property
    def known(self) -> int:
        """Return how many secrets are known by now."""
        return len(self._secrets)

    def hide(self, text: str) -> str:
        """Return the text with every secret in it replaced."""
        return self.hide_pieces([text])[0]

    def hide_pieces(self, pieces: Sequence[str]) -> list[str]:
        """Return the pieces of one text with every secret replaced, also where it spans pieces."""
        text = "".join(pieces)
        spans = self._spans(text)
        if not spans:
            return list(pieces)
        hidden, begin = [], 0
        for piece in pieces:
            end = begin + len(piece)
            hidden.append(_without(text, begin, end, spans))
            begin = end
        return hidden

    def occurs_in(self, value: Any) -> bool:
        """Tell whether a JSON value contains a secret."""
        return any(self._spans(text) for text in _texts(value))

    def cut(self, text: str, at: int) -> int:
        """Return where to cut the text, near `at`, so that no secret in it is cut in two."""
        for start, end in self._spans(text):
            if start < at < end:
                return start or end
        return at

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Return where secrets are, in order; those that overlap are one span.

        Most texts hold no secret: only where the part of a form that is always the same is found,
        which is fast, is it looked at more closely.
        """
        close = {form for anchor in self._anchors_in(text) for form in self._forms[anchor]}
        found = sorted(span for form in close for span in form.spans(text))
        joined: list[tuple[int, int]] = []
        for start, end in found:
            if joined and start < joined[-1][1]:
                joined[-1] = (joined[-1][0], max(joined[-1][1], end))
            else:
                joined.append((start, end))
        return joined

    def _anchors_in(self, text: str) -> set[str]:
        """Find all of them in one pass, however many there are (Aho and Corasick, 1975)."""
        anywhere = {""} & self._forms.keys()
        if len(anywhere) == len(self._forms):  # an automaton of nothing cannot be searched with
            return anywhere
        if self._anchors is None:
            self._anchors = ahocorasick.Automaton()
            for anchor in self._forms:
                self._anchors.add_word(anchor, anchor)
            self._anchors.make_automaton()
        return anywhere | {anchor for _, anchor in self._anchors.iter(text)}


@dataclass(frozen=True)
class _Form:
    """One way to write a secret: for each of its characters, the ways to write that.

    `alone` has the characters (of a regular expression's class) that may not stand beside it, and
    `end` is a regular expression for what may follow and belongs to it.
    """

    characters: tuple[Ways, ...]
    alone: str = ""
    end: str = ""

    @property
    def anchor(self) -> str:
        """Return the longest part that is always written the same."""
        certain = "".join(ways[0] if len(ways) == 1 else "\n" for ways in self.characters)
        return max(certain.split("\n"), key=len)

    @property
    def longest(self) -> int:
        """Return how many characters of a text it takes at most."""
        return sum(len(max(ways, key=len)) for ways in self.characters) + _LONGEST_END

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Find every place where it is in the text, also such that overlap."""
        match = self._pattern.search(text)
        while match:
            yield match.span()
            match = self._pattern.search(text, match.start() + 1)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        found = "".join(map(_any_of, self.characters)) + self.end
        if self.alone:
            found = rf"(?<![{self.alone}]){found}(?![{self.alone}])"
        return re.compile(found)


def _without(text: str, begin: int, end: int, spans: Sequence[tuple[int, int]]) -> str:
    """Return text[begin:end] without the spans, each replaced where it starts."""
    parts, at = [], begin
    for start, stop in spans:
        if stop <= begin or start >= end:
            continue
        parts.append(text[at:start])
        if start >= begin:
            parts.append(MASK)
        at = min(stop, end)
    parts.append(text[at:end])
    return "".join(parts)


def _texts(value: Any) -> Iterator[str]:
    """Walk the texts and numbers in a JSON value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)


def _forms(secret: str) -> Iterator[_Form]:
    lines = secret.splitlines()
    # What texts lose before they are searched, they do not lose where it is written by its number.
    for line in {line.strip() for each in lines for line in (each, printable(each))}:
        if len(line) >= SHORT or (line and len(lines) == 1):
            alone = r"\w" if len(line) < SHORT else ""
            for ways in (_plain, _json, _json_in_json, _url):
                yield _Form(tuple(map(ways, line)), alone)
    yield from _base64_forms(secret)


def _plain(character: str) -> Ways:
    return (character,)


@cache
def _json(character: str) -> Ways:
    """Return how JSON may write a character: as itself, with a backslash, or by its number."""
    if character in _ALWAYS_ITSELF:
        return (character,)
    short = json.dumps(character, ensure_ascii=False)[1:-1]
    units = character.encode("utf-16-be", "surrogatepass").hex(" ", 2).split()
    numbers = "".join(f"\\u{unit}" for unit in units)
    ways = [short, numbers, numbers.upper().replace("\\U", "\\u")]
    if character == "/":
        ways.append("\\/")
    return tuple(dict.fromkeys(ways))


@cache
def _json_in_json(character: str) -> Ways:
    """Return how JSON may write what JSON has written; each may escape what the other leaves alone."""
    within = _json(character)
    outer = within if within[0] == character else ()
    return tuple(
        dict.fromkeys([*(json.dumps(way, ensure_ascii=False)[1:-1] for way in within), *outer])
    )


@cache
def _url(character: str) -> Ways:
    """Return how URLs may write a character: as itself, or by its bytes."""
    if character in _ALWAYS_ITSELF:
        return (character,)
    numbers = "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
    ways = [numbers, numbers.lower()]
    if character != "%":
        ways.append(character)
    if character == " ":
        ways.append("+")
    return tuple(dict.fromkeys(ways))


def _base64_forms(secret: str) -> Iterator[_Form]:
    """Return what a secret's bytes look like in base64, whatever was encoded around them."""
    data = secret.encode("utf-8", "surrogatepass")
    whole = base64.b64encode(data).decode().rstrip("=")
    if len(secret) < SHORT:
        yield _base64_form(whole, alone=r"\w+/=-", end=_PADDING)
        return
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + data).decode().rstrip("=")
        first, certain = -(-before * 8 // 6), (before + len(data)) * 8 // 6
        last = encoded[certain:]
        end = f"(?:{_any_of(_base64_ways(last))}{_PADDING})?" if last else ""
        yield _base64_form(encoded[first:certain], end=end)
    for width in WRAPPED_AT:
        if len(whole) > width:
            for start in range(0, len(whole), width):
                line = whole[start : start + width]
                if len(line) >= SHORT:
                    yield _base64_form(line, end=_PADDING)


def _base64_form(text: str, alone: str = "", end: str = "") -> _Form:
    return _Form(tuple(map(_base64_ways, text)), alone, end)


def _base64_ways(character: str) -> Ways:
    return _BASE64_WAYS.get(character, (character,))


def _any_of(ways: Ways) -> str:
    if len(ways) == 1:
        return re.escape(ways[0])
    return f"(?:{'|'.join(map(re.escape, ways))})"
