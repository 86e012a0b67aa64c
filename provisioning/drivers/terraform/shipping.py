"""Keep a resource's state at Conductor: restore it, ship it while the tool runs.

The tool keeps its state in a file of the work folder. It rewrites that file after each change, so a
read may see half of it; only complete states with a higher serial are shipped. `shipped.json`, beside
it, notes the digest of what was stored last from this folder: a state that an orphaned tool wrote here
after its worker died is taken only if nobody else has stored one since.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from provisioning.drivers.base import DriverError, Run, StateLocation
from provisioning.drivers.folders import (
    make_control_folder,
    read_left,
    remove_left,
    write_private,
)
from provisioning.drivers.terraform.journal import Journal
from provisioning.drivers.terraform.keeper import Lock, located
from provisioning.drivers.terraform.state import State

STATE_FILE = "terraform.tfstate"
ERRORED_FILE = "errored.tfstate"
STATE_FILES = (STATE_FILE, ERRORED_FILE)


class Shipper:
    """Store each new version of the state that the tool writes."""

    def __init__(self, run: Run, folder: Path, location: StateLocation) -> None:
        self._run = run
        self._folder = folder
        self._shipped = make_control_folder(folder) / "shipped.json"
        self._location = location
        self._seen: tuple[int, int, int] | None = None
        self._journal = Journal(run, shipped=True)
        self.current: State | None = None

    @property
    def suspects(self) -> bool:
        """Tell whether there may be things beside the state."""
        return self._journal.suspects

    def location(self) -> StateLocation:
        """Return where the state is kept, with the version it has now."""
        return located(self._location, self.current)

    def prepare(self) -> None:
        """Do nothing: an initialised module keeps its state in the folder that it is laid into."""

    def resume(self) -> State | None:
        """Return the last state, leaving the folder as it is: a tool is at work there."""
        self._journal.resume()
        return self._stored()

    def _stored(self) -> State | None:
        stored = self._run.load_state()
        self.current = State.read(stored)
        if stored is not None and self.current is None:
            raise DriverError(
                "The resource cannot be changed: the stored state is not a complete Terraform state.",
                permanent=True,
            )
        return self.current

    def restore(self) -> State | None:
        """Put the last state into the folder and return it.

        A newer state that an orphaned tool left in the folder wins, and is stored first.
        """
        self._stored()
        stored = self.current.raw if self.current is not None else None
        for name in (STATE_FILE, ERRORED_FILE):
            self._take_left_behind(self._folder / name, stored)
        remove_left(self._folder / ERRORED_FILE)
        target = self._folder / STATE_FILE
        remove_left(target)
        if self.current is not None:
            write_private(target, self.current.raw)
            self._note(self.current.raw)
        self._journal.settle(self.current, killed=True)
        return self.current

    def tick(self) -> None:
        """Ship the state if it changed, then note what is being made; raise LeaseLostError if fenced out."""
        self._ship_changed()
        self._journal.note()

    def _ship_changed(self) -> None:
        path = self._folder / STATE_FILE
        try:
            status = path.lstat()
        except FileNotFoundError:
            return
        seen = (status.st_mtime_ns, status.st_ino, status.st_size)
        if seen != self._seen:
            raw = read_left(path)
            if self.ship(raw, written_at=status.st_mtime) or State.read(raw) is not None:
                self._seen = seen

    def hear(self, message: Mapping[str, Any]) -> None:
        """Take a message of the tool's log."""
        self._journal.hear(message)

    def rescue(self, raw: bytes) -> None:
        """Ship a state that the tool could not write."""
        self.ship(raw)

    def conclude(self, *, killed: bool) -> None:
        """Tell what may exist beside the state, which is what was collected."""
        self._journal.settle(self.current, killed=killed)

    def free(self, lock: Lock) -> bool:
        """Say that this state's lock is never left: the kernel holds it."""
        return False

    def collect(self) -> None:
        """Ship what the tool wrote last, also where it could not write its state file.

        Raises DriverError if the tool left a state of another lineage: what it tells of would be lost.
        """
        self._seen = None
        self.tick()
        with suppress(FileNotFoundError):
            self.ship(read_left(self._folder / ERRORED_FILE))
        left = None
        with suppress(FileNotFoundError):
            left = State.read(read_left(self._folder / STATE_FILE))
        known = self.current
        if left is not None and known is not None and left.lineage != known.lineage:
            raise DriverError(
                f"The tool left a state of lineage {left.lineage} (serial {left.serial}), and the "
                f"resource's is of lineage {known.lineage} (serial {known.serial}): it is not stored. "
                "Only the module itself can have put it there.",
                permanent=True,
            )

    def ship(self, raw: bytes, *, written_at: float | None = None) -> bool:
        """Store a state if it is complete and newer than the last one; say whether it was stored."""
        state = State.read(raw)
        if state is None or not self._is_newer(state):
            return False
        self._note(*(known.raw for known in (self.current, state) if known is not None))
        self._run.ship_state(raw, serial=state.serial, lineage=state.lineage, written_at=written_at)
        self._note(raw)
        self.current = state
        return True

    def _is_newer(self, state: State) -> bool:
        return self.current is None or self.current.is_followed_by(state)

    def _take_left_behind(self, path: Path, stored: bytes | None) -> None:
        try:
            left = State.read(read_left(path))
        except FileNotFoundError:
            return
        except DriverError as error:
            self._run.log(f"{error} The stored state is used.\n", level="warning")
            return
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
        """Note what is shipped, if there is room for it: a full disk must not keep states from shipping."""
        noted = json.dumps([_digest(state) for state in states]).encode()
        with suppress(OSError):
            write_private(self._shipped, noted)

    def _noted(self) -> list[str]:
        try:
            return list(json.loads(self._shipped.read_bytes()))
        except (FileNotFoundError, ValueError):
            return []


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
