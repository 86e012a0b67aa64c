"""Work out what a killed tool may have made that its state does not hold.

Terraform writes an external state seldom while it applies. What it says in its log is kept beside, as
events, and compared with the state when the tool has ended. The log is what the module's programs can
write too, so what comes of it is shown to people and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from provisioning.drivers.external_state import Event, Orphan
from provisioning.drivers.terraform.imports import Address, import_blocks
from provisioning.drivers.terraform.state import State, quoted

STARTED, COMPLETED, FAILED = "apply_start", "apply_complete", "apply_errored"
CREATE, DELETE = "create", "delete"
LONGEST = 1000
"""Bytes; a longer address or id is none that could be imported."""


def import_block(orphan: Orphan) -> str:
    """Return the import block that takes an orphan into the state, or a comment if none can."""
    try:
        address = str(Address.read(orphan.address))
    except ValueError as error:
        return f"# {quoted(orphan.address)} cannot be imported: {error}.\n"
    if not orphan.id_value:
        return f"# {address}: its making was begun, and its id was never heard.\n"
    return import_blocks({address: orphan.id_value})


def event_of(message: Mapping[str, Any]) -> Event | None:
    """Return the event that a line of the tool's log tells of, if it makes or removes a thing."""
    hook = message.get("hook")
    if message.get("type") not in (STARTED, COMPLETED, FAILED) or not isinstance(hook, dict):
        return None
    resource = hook.get("resource")
    if not isinstance(resource, dict) or hook.get("action") not in (CREATE, DELETE):
        return None
    words = [
        _text(each)
        for each in (
            resource.get("addr"), resource.get("resource_type"), hook.get("id_key"), hook.get("id_value"),
        )
    ]  # fmt: skip
    if not words[0] or any(len(word.encode("utf-8", "replace")) > LONGEST for word in words):
        return None
    return Event(str(message["type"]), str(hook["action"]), *words)


def settle(
    events: Sequence[Event], orphans: Iterable[Orphan], state: State | None, *, killed: bool
) -> frozenset[Orphan]:
    """Return what may exist beside a state, after what a tool said and what was suspected before.

    `killed` tells that the tool could not write its state, or hear the end of what it had begun.
    """
    held = state.instances if state is not None else ()
    known = {
        (each.type, key, str(value))
        for each in held
        for key, value in each.attributes.items()
        if isinstance(value, str | int)
    }
    addresses = {each.address for each in held}
    left = dict.fromkeys(orphans)
    begun: dict[str, Event] = {}
    for event in events:
        if event.event == STARTED:
            begun[event.address] = event
            continue
        start = begun.pop(event.address, None)
        if event.event == COMPLETED and event.action == CREATE:
            left = {_remade(each, event.address): None for each in left}
            left[Orphan(event.address, event.type, event.id_key, event.id_value)] = None
        elif event.event == COMPLETED and start is not None:
            gone = (start.type, start.id_value)
            left = {each: None for each in left if (each.type, each.id_value) != gone}
    if killed:
        for event in begun.values():
            if event.action == CREATE:
                left[Orphan(event.address, event.type)] = None
    return frozenset(each for each in left if not _is_held(each, known, addresses))


def _is_held(orphan: Orphan, known: set[tuple[str, str, str]], addresses: set[str]) -> bool:
    if orphan.id_value:
        return (orphan.type, orphan.id_key, orphan.id_value) in known
    return orphan.address in addresses and not orphan.remade


def _remade(orphan: Orphan, address: str) -> Orphan:
    return replace(orphan, remade=True) if orphan.address == address else orphan


def _text(value: object) -> str:
    """Return a text as PostgreSQL can store it."""
    text = "" if value is None else str(value)
    return text.encode("utf-8", "replace").decode().replace("\0", "")
