"""What a driver may ask of its worker about a state that its tool, not Conductor, writes.

What the tool says it does is noted meanwhile, so that what a killed one made and could not write down
can be told. `open` and locks are for states that are kept outside of Conductor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StateAccess:
    """Say where Conductor serves a resource's state to a run's tool, and with which credentials."""

    address: str
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Event:
    """Hold what a tool said that it began (`apply_start`), did or failed to do to one thing."""

    event: str
    action: str
    address: str
    type: str
    id_key: str = ""
    id_value: str = ""


@dataclass(frozen=True, slots=True)
class Orphan:
    """Name one thing that may exist beside the state; without an id, its making was only begun.

    `remade` tells that another thing was made at its address since.
    """

    address: str
    type: str
    id_key: str = ""
    id_value: str = ""
    remade: bool = False


class ExternalState(Protocol):
    """Be what a run knows of its resource's external state; each call may raise LeaseLostError."""

    def open(self) -> StateAccess:
        """Begin to use the state: earlier attempts' tools cannot reach it at Conductor any more.

        Call it when no tool of an earlier attempt runs, before the first that uses the state.
        """

    def note(self, events: Sequence[Event], first: int) -> None:
        """Keep what the tool said; `first` is the number of the first event among all of the tool's.

        The same events may be noted again.
        """

    def settle(self, state: bytes | None, *, killed: bool) -> Sequence[Orphan]:
        """Compare all that was noted with the state; return what may exist beside it, by address.

        `killed` tells that the tool was not able to end by itself.
        """

    def is_left_lock(self, who: str, created: datetime) -> bool:
        """Tell whether a lock on the state was left by a dead run of this resource."""
