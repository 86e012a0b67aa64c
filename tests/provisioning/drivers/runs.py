"""A Run that keeps everything in memory, and the inputs that drivers are tried with."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from provisioning.drivers.base import DriverInput, LeaseLostError, Output
from provisioning.drivers.external_state import Event, Orphan, StateAccess
from provisioning.drivers.terraform.journal import settle
from provisioning.drivers.terraform.state import State


@dataclass
class MemoryExternalState:
    """Keep what a tool with an external state said in memory."""

    events: dict[int, Event] = field(default_factory=dict)
    orphans: frozenset[Orphan] = frozenset()
    left_by: str = ""
    opened: int = 0

    def open(self) -> StateAccess:
        self.opened += 1
        return StateAccess("http://127.0.0.1:9/", "run", "a-token-of-this-run")

    def note(self, events: Sequence[Event], first: int) -> None:
        self.events |= dict(enumerate(events, first))

    def settle(self, state: bytes | None, *, killed: bool) -> Sequence[Orphan]:
        said = [self.events[number] for number in sorted(self.events)]
        self.orphans = settle(said, self.orphans, State.read(state), killed=killed)
        self.events = {}
        return sorted(self.orphans, key=lambda orphan: orphan.address)

    def is_left_lock(self, who: str, created: datetime) -> bool:
        return who == self.left_by


@dataclass
class MemoryRun:
    """Keep state, log and masks in memory; masked values never enter the log."""

    work_folder: Path
    step: int = 1
    attempt: int = 1
    recovering: bool = False
    environment: Mapping[str, str] = field(
        default_factory=lambda: {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    )
    deadline: float | None = None
    states: list[bytes] = field(default_factory=list)
    logged: list[tuple[str, str, str]] = field(default_factory=list)
    unmasked: list[tuple[str, str, str]] = field(default_factory=list)
    masked: set[str] = field(default_factory=set)
    written_at: list[float | None] = field(default_factory=list)
    told: str | None = None
    fenced: bool = False
    shipped: threading.Event = field(default_factory=threading.Event)
    external_state: MemoryExternalState = field(default_factory=MemoryExternalState)

    def log(self, text: str, *, stream: str = "stdout", level: str = "info") -> None:
        self.unmasked.append((stream, level, text))
        for value in self.masked:
            text = text.replace(value, "***")
        self.logged.append((stream, level, text))

    def load_state(self) -> bytes | None:
        return self.states[-1] if self.states else None

    def ship_state(
        self,
        state: bytes,
        *,
        serial: int | None = None,
        lineage: str = "",
        written_at: float | None = None,
    ) -> None:
        if self.fenced:
            raise LeaseLostError("Another worker runs this step now.")
        self.states.append(state)
        self.written_at.append(written_at)
        self.shipped.set()

    def mask(self, value: str) -> None:
        self.masked.add(value)

    def should_stop(self) -> str | None:
        return self.told

    def text(self) -> str:
        return "".join(text for _, _, text in self.logged)


def driver_input(content: Path, **changes: Any) -> DriverInput:
    """Return the input of a resource `db` of the application `shop`, with changes."""
    values: dict[str, Any] = {
        "resource_id": "0a1b2c3d-0000-4000-8000-00000000000a",
        "uid": "thing.default#shop.db",
        "type": "thing",
        "class_": "default",
        "name": "shop-db",
        "params": {},
        "sensitive_params": frozenset(),
        "content": content,
        "content_digest": "sha256:feed",
        "config": {},
        "outputs": (),
        "context": {
            "organisation": "acme",
            "application": "shop",
            "environment": "development",
            "workload": "web",
            "metadata": {},
            "workloads": {
                "web": {"ports": {"http": 8080}},
                "api": {"ports": {"grpc": 9000, "http": 80}},
            },
            "tags": {},
        },
        "previous_outputs": {},
    }
    return DriverInput(**(values | changes))


def outputs(*names: str, sensitive: tuple[str, ...] = ()) -> tuple[Output, ...]:
    """Return declared outputs, some of them sensitive."""
    return tuple(Output(name, sensitive=name in sensitive) for name in (*names, *sensitive))


@dataclass
class FolderRun(MemoryRun):
    """Keep the states in a folder, so that they outlive the process that shipped them."""

    stored_in: Path = Path()

    def load_state(self) -> bytes | None:
        stored = sorted(self.stored_in.glob("*.tfstate"))
        return stored[-1].read_bytes() if stored else None

    def ship_state(
        self,
        state: bytes,
        *,
        serial: int | None = None,
        lineage: str = "",
        written_at: float | None = None,
    ) -> None:
        super().ship_state(state)
        number = len(list(self.stored_in.glob("*.tfstate"))) + 1
        temporary = self.stored_in / "new"
        temporary.write_bytes(state)
        temporary.rename(self.stored_in / f"{number:06}.tfstate")
