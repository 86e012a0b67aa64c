"""Keep a resource's Terraform state: restore it, ship it while the tool runs, read its outputs.

The tool keeps its state in a file of the work folder. It rewrites that file after each change, so a
read may see half of it; only complete states with a higher serial are shipped. `shipped.json` notes
the digest of what was stored last from this folder: a state that an orphaned tool wrote here after
its worker died is taken only if nobody else has stored one since.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provisioning.drivers.base import Run

STATE_FILE = "terraform.tfstate"
ERRORED_FILE = "errored.tfstate"
SHIPPED_FILE = "shipped.json"
STATE_FILES = (STATE_FILE, ERRORED_FILE, SHIPPED_FILE)


@dataclass(frozen=True, slots=True)
class State:
    """Hold one complete version of a state."""

    raw: bytes
    serial: int
    lineage: str
    outputs: Mapping[str, Mapping[str, Any]]
    resources: int

    @classmethod
    def read(cls, raw: bytes | None) -> State | None:
        """Return the state, or None if the bytes are not a complete one."""
        try:
            document = json.loads(raw or b"")
            return cls(
                raw=raw or b"",
                serial=int(document["serial"]),
                lineage=str(document["lineage"]),
                outputs=dict(document.get("outputs") or {}),
                resources=sum(
                    len(resource.get("instances", ()))
                    for resource in document.get("resources") or ()
                    if resource.get("mode") == "managed"
                ),
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def values(self) -> dict[str, Any]:
        """Return the outputs' values."""
        return {name: output.get("value") for name, output in self.outputs.items()}

    def sensitive(self) -> frozenset[str]:
        """Return the names of the outputs that the module marks sensitive."""
        return frozenset(name for name, output in self.outputs.items() if output.get("sensitive"))


class Shipper:
    """Store each new version of the state that the tool writes."""

    def __init__(self, run: Run, folder: Path) -> None:
        self._run = run
        self._folder = folder
        self._seen: tuple[int, int, int] | None = None
        self.current: State | None = None

    def resume(self) -> State | None:
        """Return the last state, leaving the folder as it is: a tool is at work there.

        Raises ValueError if what is stored is no state.
        """
        stored = self._run.load_state()
        self.current = State.read(stored)
        if stored is not None and self.current is None:
            raise ValueError("the stored state is not a complete Terraform state")
        return self.current

    def restore(self) -> State | None:
        """Put the last state into the folder and return it; see `resume`.

        A newer state that an orphaned tool left in the folder wins, and is stored first.
        """
        self.resume()
        stored = self.current.raw if self.current is not None else None
        for name in (STATE_FILE, ERRORED_FILE):
            self._take_left_behind(self._folder / name, stored)
        (self._folder / ERRORED_FILE).unlink(missing_ok=True)
        target = self._folder / STATE_FILE
        target.unlink(missing_ok=True)
        if self.current is not None:
            write_private(target, self.current.raw)
            self._note(self.current.raw)
        return self.current

    def tick(self) -> None:
        """Ship the state file if it changed since the last look; raise LeaseLostError if fenced out."""
        path = self._folder / STATE_FILE
        try:
            status = path.stat()
        except FileNotFoundError:
            return
        seen = (status.st_mtime_ns, status.st_ino, status.st_size)
        if seen != self._seen:
            raw = path.read_bytes()
            if self.ship(raw, written_at=status.st_mtime) or State.read(raw) is not None:
                self._seen = seen

    def finish(self) -> None:
        """Ship what the tool wrote last, also where it could not write its state file."""
        self._seen = None
        self.tick()
        errored = self._folder / ERRORED_FILE
        if errored.exists():
            self.ship(errored.read_bytes())

    def ship(self, raw: bytes, *, written_at: float | None = None) -> bool:
        """Store a state if it is complete and newer than the last one; say whether it was stored."""
        state = State.read(raw)
        if state is None or not self._is_newer(state):
            return False
        self._note(*(known.raw for known in (self.current, state) if known is not None))
        self._run.ship_state(raw, written_at=written_at)
        self._note(raw)
        self.current = state
        return True

    def _is_newer(self, state: State) -> bool:
        known = self.current
        return known is None or (state.lineage == known.lineage and state.serial > known.serial)

    def _take_left_behind(self, path: Path, stored: bytes | None) -> None:
        if not path.exists():
            return
        left = State.read(path.read_bytes())
        if left is None or not self._is_newer(left):
            return
        if stored is not None and _digest(stored) not in self._noted():
            self._run.log(
                f"A state of serial {left.serial} was left here, but another worker has stored one "
                "since; the stored one is used.\n",
                level="warning",
            )
            return
        self._run.log(f"A state of serial {left.serial} left by an earlier attempt is used.\n")
        self.ship(left.raw)

    def _note(self, *states: bytes) -> None:
        target = self._folder / SHIPPED_FILE
        write_private(target, json.dumps([_digest(state) for state in states]).encode())

    def _noted(self) -> list[str]:
        try:
            return list(json.loads((self._folder / SHIPPED_FILE).read_bytes()))
        except (FileNotFoundError, ValueError):
            return []


def write_private(path: Path, content: bytes) -> None:
    """Write a file at once that only its owner can read."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    temporary.replace(path)


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
