"""Store what a step's tool says: whole lines in chunks, without secrets, and not without end."""

from __future__ import annotations

import re
import time
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from django.db import connection, transaction

from provisioning.drivers.base import LeaseLostError
from provisioning.drivers.output import printable
from provisioning.models import LogChunk, Step, StepStatus
from provisioning.services.logs.announcing import CHANNEL
from provisioning.services.state.versions import hold_step
from provisioning.workers.masking import Mask

FLUSH_SECONDS = 0.05
CHUNK_CHARACTERS = 64 * 1024
MOST_CHARACTERS = 4 * 1024 * 1024
TOO_LONG = "… The log of this attempt is too long: the rest is left out.\n"

_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b\n]{0,1000}\x1b?)?\Z")
"""An escape sequence whose end has not come yet."""

# The fence, the rows and the news in one statement. The lock lets no later attempt begin before this
# is committed, so an attempt's chunks can all be seen before the first of the next one. Said again,
# because its answer was lost with the connection, it changes nothing.
_STORE_SQL = """
WITH mine AS (
    SELECT id, deployment_id FROM provisioning_step
    WHERE id = %s AND attempt = %s AND status = %s FOR SHARE
), stored AS (
    INSERT INTO provisioning_logchunk
        (step_id, attempt, sequence, stream, level, text, created_at)
    SELECT mine.id, %s, said.sequence, said.stream, said.level, said.text, clock_timestamp()
    FROM mine, unnest(%s::int[], %s::text[], %s::text[], %s::text[])
        AS said(sequence, stream, level, text)
    ON CONFLICT (step_id, attempt, sequence) DO NOTHING
)
SELECT pg_notify(%s, deployment_id || ' ' || id) FROM mine
"""


class _Said(NamedTuple):
    """A piece of text and where it came from."""

    stream: str
    level: str
    text: str


class _Line:
    """What has come of an unfinished line: printable text, and the start of an escape sequence."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.size = 0
        self._unfinished = ""

    def add(self, text: str) -> str:
        """Take a piece of text; return the lines that are complete with it."""
        text = self._unfinished + text
        unfinished = _UNFINISHED.search(text)
        self._unfinished = unfinished[0] if unfinished else ""
        lines, newline, rest = printable(text.removesuffix(self._unfinished)).rpartition("\n")
        if newline:
            lines = self.cut() + lines + newline
        self.pieces.append(rest)
        self.size += len(rest)
        return lines

    def cut(self) -> str:
        """Return what has come so far, and forget it."""
        text = "".join(self.pieces)
        self.pieces, self.size = [], 0
        return text


class Log:
    """Write one attempt's log; call `flush_if_due` now and then, and `close` at the end.

    Nothing is written, and LeaseLostError raised, once the step is not this attempt's any more.

    Lines are held back until they are complete, so a secret that arrives in pieces is seen whole.
    What was stored before a secret was known is masked at the end: a tool may say a value before
    its state tells that this is a secret. `flush` and `close` may be called again after a failure:
    what was stored is not stored twice.
    """

    def __init__(self, step: Step, mask: Mask) -> None:
        self._step = step
        self._attempt = step.attempt
        self._mask = mask
        self._known = 0
        self._lines: dict[tuple[str, str], _Line] = {}
        self._ready: list[_Said] = []
        self._size = 0
        self._sequence = 0
        self._written = 0
        self._flushed = time.monotonic()

    def add(self, text: str, stream: str, level: str) -> None:
        """Take a piece of text; it need not be a whole line."""
        if self._full:
            return
        line = self._lines.setdefault((stream, level), _Line())
        lines = line.add(text)
        if lines:
            self._take(_Said(stream, level, lines))
        if line.size > CHUNK_CHARACTERS + 2 * self._mask.longest:
            # A line may be stored in parts, but never half of a secret.
            begun = line.cut()
            end = self._mask.cut(begun, len(begun) - self._mask.longest)
            self._take(_Said(stream, level, begun[:end]))
            line.add(begun[end:])

    def flush_if_due(self) -> None:
        """Store what is ready if that is much, or was not done for a while."""
        waited = time.monotonic() - self._flushed
        if self._size >= CHUNK_CHARACTERS or (self._ready and waited >= FLUSH_SECONDS):
            self.flush()

    def flush(self) -> None:
        """Store what is ready; raise LeaseLostError if the step is not this attempt's any more."""
        if not self._ready:
            return
        rows, known = self._rows(), self._mask.known
        columns = map(list, zip(*rows, strict=True))
        mine = (self._step.pk, self._attempt, StepStatus.RUNNING, self._attempt)
        with connection.cursor() as cursor:
            cursor.execute(_STORE_SQL, (*mine, *columns, CHANNEL))
            stored = cursor.fetchone()
        if not self._sequence and self._attempt == 1:
            self._known = known
        self._sequence += len(rows)
        self._ready, self._size = [], 0
        self._flushed = time.monotonic()
        if stored is None:
            raise LeaseLostError(f"Step {self._step.pk} is another worker's now.")

    def end_with(self, line: str, level: str) -> None:
        """Take the line that tells of the end; a log that is too long has it too."""
        self._end_lines()
        self._ready.append(_Said("stdout", level, line))

    def close(self) -> None:
        """Store everything, unfinished lines too."""
        self._end_lines()
        self.flush()
        if self._mask.known > self._known:
            self._mask_stored()

    @property
    def _full(self) -> bool:
        return self._written > MOST_CHARACTERS

    def _end_lines(self) -> None:
        for (stream, level), line in self._lines.items():
            self._take(_Said(stream, level, line.cut()))

    def _take(self, said: _Said) -> None:
        """Make text ready that has no unfinished line, or whose last line is cut with care."""
        if self._full or not said.text:
            return
        left = MOST_CHARACTERS - self._written
        if len(said.text) > left:
            end = self._mask.cut(said.text[: left + self._mask.longest], left)
            said = said._replace(text=f"{said.text[:end]}\n{TOO_LONG}")
            self._written = MOST_CHARACTERS + 1
        self._written += len(said.text)
        self._size += len(said.text)
        self._ready.append(said)

    def _rows(self) -> list[tuple[int, str, str, str]]:
        """Return what is ready as rows of a limited size, without secrets: number, stream, level, text."""
        rows: list[tuple[int, str, str, str]] = []
        for (stream, level), said in groupby(self._ready, attrgetter("stream", "level")):
            text = self._mask.hide("".join(each.text for each in said))
            for start in range(0, len(text), CHUNK_CHARACTERS):
                part = text[start : start + CHUNK_CHARACTERS]
                rows.append((self._sequence + len(rows), stream, level, part))
        return rows

    def _mask_stored(self) -> None:
        """Mask what the step's attempts have stored, also one whose worker died in the middle."""
        with transaction.atomic():
            hold_step(self._step.pk, self._attempt)
            stored = LogChunk.objects.select_for_update().filter(step_id=self._step.pk)
            place = ("attempt", "stream", "level")
            chunks = stored.order_by(*place, "sequence").iterator()
            for _, of_place in groupby(chunks, attrgetter(*place)):
                self._mask_chunks(list(of_place))
        self._known = self._mask.known

    def _mask_chunks(self, chunks: list[LogChunk]) -> None:
        changed = []
        texts = self._mask.hide_pieces([chunk.text for chunk in chunks])
        for chunk, text in zip(chunks, texts, strict=True):
            if text != chunk.text:
                chunk.text = text
                changed.append(chunk)
        LogChunk.objects.bulk_update(changed, ["text"])
