"""Read what a Terraform state holds: its version, its outputs and its resources."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}

MOST_SERIAL = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Instance:
    """Hold one managed thing that a state knows."""

    address: str
    type: str
    attributes: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class State:
    """Hold one complete version of a state."""

    raw: bytes = field(repr=False)
    serial: int
    lineage: str
    outputs: Mapping[str, Mapping[str, Any]] = field(repr=False)
    instances: tuple[Instance, ...]
    secrets: tuple[Any, ...] = field(repr=False)
    """The values that the module or a provider marks sensitive, in outputs and in attributes."""

    @classmethod
    def read(cls, raw: bytes | None) -> State | None:
        """Return the state, or None if the bytes are not a complete one."""
        try:
            document = json.loads(raw or b"")
            serial, lineage = document["serial"], document["lineage"]
            if type(serial) is not int or not 0 <= serial <= MOST_SERIAL:
                return None
            if not isinstance(lineage, str) or len(lineage) > 100 or not lineage.isprintable():
                return None
            outputs, resources = (
                dict(document.get("outputs") or {}),
                document.get("resources") or (),
            )
            return cls(
                raw=raw or b"",
                serial=serial,
                lineage=lineage,
                outputs=outputs,
                instances=tuple(_instances(resources)),
                secrets=(*_secret_outputs(outputs), *_secret_attributes(resources)),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def values(self) -> dict[str, Any]:
        """Return the outputs' values."""
        return {name: output.get("value") for name, output in self.outputs.items()}

    def sensitive(self) -> frozenset[str]:
        """Return the names of the outputs that the module marks sensitive."""
        return frozenset(name for name, output in self.outputs.items() if output.get("sensitive"))

    def is_followed_by(self, other: State) -> bool:
        """Tell whether another state is a later version of this one."""
        return other.lineage == self.lineage and other.serial > self.serial

    def with_serial(self, serial: int) -> bytes:
        """Return the same state under another serial, byte for byte the same otherwise."""
        text = self.raw.decode()
        start, end = place_of(text, "serial")
        return (text[:start] + str(serial) + text[end:]).encode()


def _instances(resources: Any) -> Iterator[Instance]:
    for resource in resources:
        if resource.get("mode") != "managed":
            continue
        path = f"{resource['module']}." if resource.get("module") else ""
        for instance in resource.get("instances", ()):
            yield Instance(
                f"{path}{resource.get('type')}.{resource.get('name')}{_index(instance)}",
                str(resource.get("type")),
                instance.get("attributes") or {},
            )


def _secret_outputs(outputs: Mapping[str, Any]) -> Iterator[Any]:
    yield from (output.get("value") for output in outputs.values() if output.get("sensitive"))


def _secret_attributes(resources: Any) -> Iterator[Any]:
    """Yield what a state's `sensitive_attributes` lead to, each a list of steps into the attributes."""
    for resource in resources:
        for instance in resource.get("instances", ()):
            for path in instance.get("sensitive_attributes") or ():
                yield _at(instance.get("attributes"), path)


def _at(value: Any, path: Any) -> Any:
    """Follow a path; None where it leads nowhere."""
    for step in path:
        name = step["value"]
        if isinstance(name, Mapping):  # an index, with its type
            name = name["value"]
        try:
            value = value[int(name) if isinstance(value, list) else name]
        except (LookupError, TypeError, ValueError):
            return None
    return value


def _index(instance: Mapping[str, Any]) -> str:
    """Write an instance's key as addresses have it."""
    if "index_key" not in instance:
        return ""
    key = instance["index_key"]
    return f"[{quoted(key) if isinstance(key, str) else key}]"


def quoted(text: str) -> str:
    """Write a text as a string of Terraform's language in which nothing is expanded."""
    written = "".join(_ESCAPES.get(character) or _visible(character) for character in text)
    return '"' + written.replace("${", "$${").replace("%{", "%%{") + '"'


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def place_of(text: str, wanted: str) -> tuple[int, int]:
    """Find where a key's value stands in the text of a JSON object that has it.

    What is cut out or put in there leaves all numbers as they were written.
    """
    decoder = json.JSONDecoder()
    at = text.index("{") + 1
    while True:
        key, at = decoder.raw_decode(text, _after(text, at, " \t\r\n,"))
        start = _after(text, at, " \t\r\n:")
        _, at = decoder.raw_decode(text, start)
        if key == wanted:
            return start, at


def _after(text: str, at: int, skipped: str) -> int:
    while text[at] in skipped:
        at += 1
    return at
