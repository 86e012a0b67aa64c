"""How far a deployment's log has been read, as a short text.

Several workers write the steps of one deployment at once, and numbers taken from one sequence become
visible in another order than they were given. So there is no number for the whole log: a cursor has
one place per step, which only one worker at a time writes, and in order.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import TypeAlias

from provisioning.exceptions import ConductorError

Place: TypeAlias = tuple[int, int]
"""An attempt and the sequence number of its last chunk that was read."""

BEGINNING: Place = (0, -1)
MOST_CHARACTERS = 60_000

_PART = re.compile(
    r"(?P<first>\d{1,18})(?:-(?P<last>\d{1,18})|:(?P<attempt>\d{1,9})\.(?P<sequence>\d{1,9}))?"
)


class CursorError(ConductorError):
    """Say that a text is not a cursor."""


class Cursor:
    """Remember the last chunk read of each step, and which steps have been read to their end.

    As a text it looks like `4-38,40:1.17,41:2.0`: steps 4 to 38 are done, 40 was read up to chunk 17
    of its first attempt. Steps that nothing was read of are not in it.
    """

    def __init__(self) -> None:
        self._places: dict[int, Place] = {}
        self._done: list[tuple[int, int]] = []  # first and last step of each run, in order

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read a cursor's text; raise CursorError."""
        cursor = cls()
        for part in text.split(",") if text else ():
            found = _PART.fullmatch(part) if len(text) <= MOST_CHARACTERS else None
            if found is None:
                raise CursorError(f"{text[:100]!r} does not say how far a log was read.")
            first = int(found["first"])
            if found["attempt"]:
                cursor.advance(first, (int(found["attempt"]), int(found["sequence"])))
            else:
                cursor._finish(first, int(found["last"] or first))
        return cursor

    def place(self, step: int) -> Place:
        """Return the last chunk that was read of a step; the next one is after it."""
        return self._places.get(step, BEGINNING)

    def is_done(self, step: int) -> bool:
        """Tell whether a step was read to its end."""
        run = bisect_right(self._done, (step, 10**18)) - 1
        return run >= 0 and self._done[run][0] <= step <= self._done[run][1]

    def advance(self, step: int, place: Place) -> None:
        """Note that a step was read up to a place."""
        self._places[step] = place

    def finish(self, step: int) -> None:
        """Note that a step was read to its end, and that nothing more can come."""
        self._finish(step, step)

    def _finish(self, first: int, last: int) -> None:
        for step in [step for step in self._places if first <= step <= last]:
            del self._places[step]
        apart = []
        for begin, end in self._done:
            if end < first - 1 or begin > last + 1:
                apart.append((begin, end))
            else:
                first, last = min(first, begin), max(last, end)
        self._done = sorted([*apart, (first, last)])

    def __str__(self) -> str:
        done = [f"{first}-{last}" if last > first else f"{first}" for first, last in self._done]
        places = [
            f"{step}:{attempt}.{sequence}"
            for step, (attempt, sequence) in sorted(self._places.items())
        ]
        return ",".join([*done, *places])
