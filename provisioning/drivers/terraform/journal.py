"""Work out what a killed tool may have made that its state does not hold.

Terraform notes a thing in its state when it is made, and an external state seldom while it applies.
What it says in its log is kept beside, as events, and compared with the state when the tool has ended.
The log is what the module's programs can write too, so what comes of it is shown to people and decides
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from provisioning.drivers.base import Run
from provisioning.drivers.external_state import Event, Orphan
from provisioning.drivers.terraform.imports import Address, import_blocks
from provisioning.drivers.terraform.state import State, quoted

STARTED, COMPLETED, FAILED = "apply_start", "apply_complete", "apply_errored"
CREATE, DELETE = "create", "delete"
LONGEST = 1000
"""Bytes; a longer address or id is none that could be imported."""
MOST_EVENTS = 100_000
"""A tool that says more than that, of itself or by its module's programs, is not listened to any more."""


class Journal:
    """Note what one run's tools say they make, and tell afterwards what may exist beside the state.

    Where the state is stored while the tool runs, `shipped`, nothing need be noted of a tool that makes
    one thing after the other at once: only what is being made while somebody looks could be lost. What is
    suspected already is another matter: what is made in its place must be known.
    """

    def __init__(self, run: Run, *, shipped: bool) -> None:
        self._run, self._shipped = run, shipped
        self._heard: list[Event] = []
        self._begun: set[str] = set()
        self._noted = 0
        self._is_settled = True
        self.suspects = False

    def resume(self) -> None:
        """Begin with a tool whose first words another attempt may have noted."""
        self._is_settled = False

    def hear(self, message: Mapping[str, Any]) -> None:
        """Take one message of the tool's log."""
        event = event_of(message)
        if event is None or self._noted + len(self._heard) >= MOST_EVENTS:
            return
        self._heard.append(event)
        if event.event != STARTED:
            self._begun.discard(event.address)
        elif event.action == CREATE:
            self._begun.add(event.address)

    def note(self) -> None:
        """Store what was heard since the last time, as far as that could be needed."""
        if self._heard and (self._begun or self._noted or self.suspects or not self._shipped):
            self._is_settled = False
            self._run.external_state.note(self._heard, self._noted)
            self._noted += len(self._heard)
            self._heard = []

    def settle(self, state: State | None, *, killed: bool) -> None:
        """Compare what the ended tool said with its state; say what may exist that is not in it."""
        if self._shipped and self._is_settled and not self.suspects and not killed:
            self._heard = []
            return
        orphans = self._run.external_state.settle(state.raw if state else None, killed=killed)
        self._begun, self._noted, self._is_settled = set(), 0, True
        self.suspects = bool(orphans)
        if orphans:
            self._run.log(told(orphans), level="warning")


def told(orphans: Sequence[Orphan]) -> str:
    """Return a text that lists possible orphans with their import blocks."""
    count = f"{len(orphans)} things" if len(orphans) > 1 else "One thing"
    blocks = "".join(import_block(orphan) for orphan in orphans)
    return f"{count} may exist that the state does not hold:\n{blocks}"


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
