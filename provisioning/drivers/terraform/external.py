"""Keep a resource's state where its location says, by Terraform's own backends.

Terraform writes such a state only every twenty seconds, and a killed one not at all. Hence what it
says it does is noted, and compared with the state afterwards; and a state that it could not write is
kept at Conductor until it can be. Only the state itself decides anything.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from provisioning.drivers.base import DriverError, Run, StateLocation
from provisioning.drivers.external_state import StateAccess
from provisioning.drivers.folders import read_left, remove_left, write_private
from provisioning.drivers.terraform.backends import HTTP, LOCAL, OVERRIDE_FILE, override
from provisioning.drivers.terraform.commands import Commands
from provisioning.drivers.terraform.journal import Journal
from provisioning.drivers.terraform.keeper import Lock, located
from provisioning.drivers.terraform.module_cache import DATA_FOLDER
from provisioning.drivers.terraform.shipping import ERRORED_FILE, STATE_FILE
from provisioning.drivers.terraform.state import State

BACKEND_FOLDER = ".backend"
RECOVERED_FILE = "recovered.tfstate"
LOCK_WAIT = "15s"


class ExternalKeeper:
    """Read, watch and repair a state that Terraform keeps elsewhere."""

    def __init__(self, run: Run, commands: Commands, location: StateLocation) -> None:
        self._run = run
        self._commands = commands
        self._folder = commands.folder
        self._location = location
        self._access: StateAccess | None = None
        self._journal = Journal(run, shipped=False)
        self.current: State | None = None
        # A repeated try most likely meets a lock of its own.
        patient = run.attempt == 1 and not run.recovering
        commands.options = (f"-lock-timeout={LOCK_WAIT if patient else '0s'}",)

    @property
    def suspects(self) -> bool:
        """Tell whether there may be things beside the state."""
        return self._journal.suspects

    def location(self) -> StateLocation:
        """Return where the state is kept, with the version it has now."""
        return located(self._location, self.current)

    def prepare(self) -> None:
        """Tell the module in the work folder where its state is kept.

        Providers and modules are there already. What `init` notes of a backend does not depend on them,
        so it runs in a folder without any: there it takes as long as the tool needs to start.
        """
        self._take_errored()
        block = override(self._location, self._open())
        write_private(self._folder / OVERRIDE_FILE, block)
        bare = self._folder / BACKEND_FOLDER
        bare.mkdir()
        write_private(bare / "backend.tf.json", block)
        self._commands.read(f"-chdir={bare.name}", "init", "-input=false", "-no-color")
        noted = Path(DATA_FOLDER) / STATE_FILE
        (bare / noted).replace(self._folder / noted)
        shutil.rmtree(bare)

    def resume(self) -> State | None:
        """Begin to watch a tool that an earlier attempt started: it alone reaches the state now."""
        data = self._folder / DATA_FOLDER
        links = [path for path in data.iterdir() if path.is_symlink()] if data.is_dir() else []
        self._commands.readable += [path.resolve() for path in links]
        return None

    def restore(self) -> State | None:
        """Return the state, after bringing in what was rescued and telling what may be beside it."""
        self.current = self._pull()
        rescued = self._rescued()
        if rescued is not None:
            self._bring_in(rescued)
        self._check_lineage()
        self._journal.settle(self.current, killed=True)
        return self.current

    def hear(self, message: Mapping[str, Any]) -> None:
        """Take one message of the tool's log."""
        self._journal.hear(message)

    def tick(self) -> None:
        """Note what was heard since the last time."""
        self._journal.note()

    def rescue(self, raw: bytes) -> None:
        """Keep a state that could not be written to its place until it can be."""
        state, known = State.read(raw), State.read(self._run.load_state())
        if state is None or (
            known is not None and known.lineage == state.lineage and known.serial >= state.serial
        ):
            return
        self._run.ship_state(raw, serial=state.serial, lineage=state.lineage)

    def collect(self) -> None:
        """Take what the ended tool left in the work folder."""
        self.tick()
        self._take_errored()

    def conclude(self, *, killed: bool) -> None:
        """Read the state that the ended tool wrote, and tell what may be beside it."""
        self._open()
        self.current = self._pull()
        self._journal.settle(self._rescued() or self.current, killed=killed)

    def free(self, lock: Lock) -> bool:
        """Release a lock that a dead run of this resource left; say whether it was one."""
        if not self._run.external_state.is_left_lock(lock.who, lock.created):
            return False
        self._run.log(f"A dead run of {lock.who} left the lock {lock.id}: it is released.\n")
        self._commands.read("force-unlock", "-force", lock.id)
        return True

    def _open(self) -> StateAccess:
        if self._access is None:
            self._access = access = self._run.external_state.open()
            self._run.mask(access.password)
            if self._location.backend == HTTP:
                self._commands.environment |= {
                    "TF_HTTP_USERNAME": access.username,
                    "TF_HTTP_PASSWORD": access.password,
                }
            if self._location.backend == LOCAL:
                own = Path(self._location.metadata["config"]["path"]).parent
                own.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._commands.writable.append(own)
        return self._access

    def _take_errored(self) -> None:
        errored = self._folder / ERRORED_FILE
        try:
            self.rescue(read_left(errored))
        except FileNotFoundError:
            return
        except DriverError as error:
            self._run.log(f"{error}\n", level="warning")
        remove_left(errored)

    def _pull(self) -> State | None:
        raw = self._commands.read("state", "pull")
        raw = raw[max(raw.find(b"{"), 0) :]
        state = State.read(raw)
        if state is None and raw.strip():
            raise DriverError(
                f"What is stored at {self._location.location} is not a complete Terraform state.",
                permanent=True,
            )
        # Of what was never stored, Terraform prints an empty state without a lineage.
        return state if state is not None and state.lineage else None

    def _rescued(self) -> State | None:
        """Return the state that an earlier run could not write to its place, if it is the newer one."""
        rescued = State.read(self._run.load_state())
        if rescued is None or self.current is None or self.current.is_followed_by(rescued):
            return rescued
        return None

    def _bring_in(self, rescued: State) -> None:
        self._run.log(
            f"A state of serial {rescued.serial} that an earlier run could not write is written now.\n"
        )
        target = self._folder / RECOVERED_FILE
        write_private(target, rescued.raw)
        self._commands.read("state", "push", *self._commands.options, target.name)
        target.unlink()
        self.current = self._pull()

    def _check_lineage(self) -> None:
        known = self._location.metadata.get("lineage")
        if not known or (self.current is not None and self.current.lineage == known):
            return
        found = f"is of lineage {self.current.lineage}" if self.current else "is gone"
        raise DriverError(
            f"The state at {self._location.location} {found}, and this resource's is of lineage {known}. "
            "Nothing is changed, since everything would be made a second time: put the state back, or "
            "say with `manage.py state accept` that what is there now is right.",
            permanent=True,
        )
