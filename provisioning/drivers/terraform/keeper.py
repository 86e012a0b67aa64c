"""What the driver asks of whatever keeps a resource's state, and the locks that stand in its way."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from provisioning.drivers.base import DriverError, StateLocation
from provisioning.drivers.terraform.state import State

_LOCK = re.compile(
    r"Error acquiring the state lock.*?\bID:\s+(?P<id>[\w-]+).*?\bWho:\s+(?P<who>\S+)"
    r".*?\bCreated:\s+(?P<created>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Lock:
    """Hold what Terraform says of the lock that stands in its way."""

    id: str
    who: str
    created: datetime


class LockedError(DriverError):
    """Say that the state is locked, and by whom."""

    def __init__(self, message: str, lock: Lock) -> None:
        super().__init__(message, permanent=False)
        self.lock = lock


class StateKeeper(Protocol):
    """Keep one resource's state for one run.

    `current` is the state as it is known, and `suspects` whether there may be things beside it.
    """

    current: State | None

    @property
    def suspects(self) -> bool: ...

    def location(self) -> StateLocation:
        """Return where the state is kept, with the version it has now."""

    def prepare(self) -> None:
        """Make the module in the work folder keep its state there."""

    def resume(self) -> State | None:
        """Begin with a tool that an earlier attempt has started in the work folder."""

    def restore(self) -> State | None:
        """Begin without one: return the last state, and have the tool find it."""

    def hear(self, message: Mapping[str, Any]) -> None:
        """Take a message of the tool's log."""

    def tick(self) -> None:
        """Do what is due while the tool runs; raise LeaseLostError if the step is another's."""

    def rescue(self, raw: bytes) -> None:
        """Keep a state that the tool could write nowhere."""

    def collect(self) -> None:
        """Take what an ended tool left in the work folder."""

    def conclude(self, *, killed: bool) -> None:
        """Make `current` be the state that an ended tool wrote."""

    def free(self, lock: Lock) -> bool:
        """Release a lock if a dead run of this resource left it; say whether it did."""


def lock_in(text: str) -> Lock | None:
    """Return the lock that an error message tells of."""
    found = _LOCK.search(text)
    if found is None:
        return None
    try:
        created = datetime.strptime(found["created"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None
    return Lock(found["id"], found["who"], created)


def tool_error(message: str) -> DriverError:
    """Return the error of a tool that failed: LockedError if a lock was in its way."""
    lock = lock_in(message)
    return DriverError(message, permanent=False) if lock is None else LockedError(message, lock)


def located(location: StateLocation, state: State | None) -> StateLocation:
    """Return a location with the version of the state that is there."""
    if state is None:
        return location
    version = {"serial": str(state.serial), "lineage": state.lineage}
    return replace(location, metadata={**location.metadata, **version})
