"""Take existing things into a module's state: which addresses may be imported, and how it is written.

Terraform's `import` blocks do it. They stand in a file of their own beside the module, and only for
addresses that the state does not have yet, so repeating them changes nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provisioning.drivers.base import DriverError
from provisioning.drivers.terraform.module import Block, declared_blocks
from provisioning.drivers.terraform.state import State, quoted

IMPORTS_FILE = "conductor_imports.tf"
HARMLESS = (["no-op"], ["read"])
VERBS = {
    ("create",): "create",
    ("update",): "change",
    ("delete",): "destroy",
    ("create", "delete"): "replace",
    ("delete", "create"): "replace",
}
MOST_SHOWN = 10

_INDEX = re.compile(r'\[(?:(?P<number>0|[1-9]\d*)|"(?P<key>(?:[^"\\]|\\["\\])+)")\]')
_NAME = re.compile(r"[A-Za-z_][\w-]*")
_Key = int | str | None


@dataclass(frozen=True, slots=True)
class Address:
    """Name one resource instance: the module calls that lead to it, its type, name and index."""

    modules: tuple[tuple[str, _Key], ...]
    type: str
    name: str
    index: _Key = None

    @classmethod
    def read(cls, text: str) -> Address:
        """Read an address as Terraform writes it; raise ValueError saying what is wrong with it."""
        words = list(_words(text))
        modules = []
        while words and words[0] == ("module", None):
            if len(words) < 2:
                raise ValueError("it ends in a module")
            modules.append(words[1])
            words = words[2:]
        if words and words[0] == ("data", None):
            raise ValueError("it names a data source, and only resources are imported")
        if len(words) != 2 or words[0][1] is not None:
            raise ValueError("it is not written as `type.name`, perhaps with `module.x.` and `[…]`")
        (type_, _), (name, index) = words
        return cls(tuple(modules), type_, name, index)

    def __str__(self) -> str:
        """Write it as Terraform does."""
        calls = "".join(f"module.{_written(*call)}." for call in self.modules)
        return f"{calls}{self.type}.{_written(self.name, self.index)}"


def check_imports(content: Path, imports: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the ids by address, as Terraform writes it; raise DriverError with all that is wrong."""
    checked: dict[str, str] = {}
    problems = []
    for text, id_ in imports:
        try:
            address = Address.read(text)
            _check_declared(content, content, address.modules, address)
            if str(address) in checked:
                raise ValueError("it is given twice")
            if not id_ or not id_.isprintable():
                raise ValueError("its id is empty or has characters that cannot be printed")
        except ValueError as error:
            problems.append(f"{text} cannot be imported: {error}.")
        else:
            checked[str(address)] = id_
    if problems:
        raise DriverError("\n".join(problems), permanent=True)
    return checked


def missing_imports(imports: Mapping[str, str], state: State | None) -> dict[str, str]:
    """Return the imports whose addresses a state does not have."""
    there = set(_addresses(state)) if state is not None else set()
    return {text: id_ for text, id_ in imports.items() if Address.read(text) not in there}


def import_blocks(imports: Mapping[str, str]) -> str:
    """Write imports as a file of Terraform's language."""
    return "\n".join(
        f"import {{\n  to = {address}\n  id = {quoted(id_)}\n}}\n"
        for address, id_ in sorted(imports.items())
    )


def changes_besides(plan: str) -> list[str]:
    """Return what a plan, as `show -json` writes it, would do besides importing, by address.

    Of what is changed, the attributes are named, and no value. A plan that cannot be read would do
    anything.
    """
    try:
        document = json.loads(plan)
        changes = [(each["address"], each["change"]) for each in document["resource_changes"]]
    except (ValueError, KeyError, TypeError):
        return ["do something that its plan does not tell"]
    found = []
    for address, change in changes:
        actions = change["actions"]
        if actions not in HARMLESS:
            verb = VERBS.get(tuple(actions), " and ".join(actions))
            attributes = _differing(change) if verb == "change" else []
            told = f" ({', '.join(attributes)})" if attributes else ""
            found.append(f"{verb} {address}{told}")
    return sorted(found)


def shown(changes: Sequence[str]) -> str:
    """Name changes in a sentence, the first ones if there are many."""
    more = len(changes) - MOST_SHOWN
    return ", ".join(changes[:MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _words(text: str) -> Iterator[tuple[str, _Key]]:
    """Split an address at its dots, into names with their indexes."""
    at = 0
    while True:
        name = _NAME.match(text, at)
        if name is None:
            raise ValueError(
                f"a name is expected at {text[at:]!r}" if text[at:] else "it ends early"
            )
        index = _INDEX.match(text, name.end())
        at = index.end() if index else name.end()
        yield name[0], _key(index)
        if at == len(text):
            return
        if text[at] != ".":
            raise ValueError(f"{text[at:]!r} is not expected in it")
        at += 1


def _key(index: re.Match[str] | None) -> _Key:
    if index is None:
        return None
    if index["number"] is not None:
        return int(index["number"])
    key = re.sub(r'\\(["\\])', r"\1", index["key"])
    if not key.isprintable() or "${" in key or "%{" in key:
        raise ValueError(f"the key {key!r} has characters that are not taken")
    return key


def _written(name: str, index: _Key) -> str:
    if index is None:
        return name
    return f"{name}[{index if isinstance(index, int) else quoted(index)}]"


def _check_declared(
    root: Path, folder: Path, calls: Sequence[tuple[str, _Key]], address: Address
) -> None:
    """Look whether a module declares an address; a module from elsewhere is known to Terraform only."""
    if not calls:
        block = declared_blocks(folder, "resource").get((address.type, address.name))
        _check_index(block, f"{address.type}.{address.name}", address.index)
        return
    (name, index), *rest = calls
    block = declared_blocks(folder, "module").get((name,))
    _check_index(block, f"module.{name}", index)
    source = str(block.get("source", "")) if block else ""
    inner = (folder / source).resolve()
    if source.startswith(("./", "../")) and inner.is_relative_to(root.resolve()) and inner.is_dir():
        _check_declared(root, inner, rest, address)


def _check_index(block: Block | None, what: str, index: _Key) -> None:
    if block is None:
        raise ValueError(f"the module declares no {what}")
    if "count" in block and not isinstance(index, int):
        raise ValueError(f"{what} has `count`, so a number in brackets is needed, such as [0]")
    if "for_each" in block and not isinstance(index, str):
        raise ValueError(f'{what} has `for_each`, so a key in brackets is needed, such as ["a"]')
    if index is not None and not {"count", "for_each"} & block.keys():
        raise ValueError(f"{what} is one resource or module, so nothing in brackets is taken")


def _addresses(state: State) -> Iterator[Address]:
    """Walk what a state holds, except for what nobody can have asked for."""
    for instance in state.instances:
        with suppress(ValueError):
            yield Address.read(instance.address)


def _differing(change: Mapping[str, Any]) -> list[str]:
    """Name the attributes that a change gives another value, or one that is not known yet."""
    before, after = change.get("before") or {}, change.get("after") or {}
    unknown = change.get("after_unknown") or {}
    names = {*before, *after, *unknown}
    return sorted(
        name for name in names if before.get(name) != after.get(name) or unknown.get(name) is True
    )
