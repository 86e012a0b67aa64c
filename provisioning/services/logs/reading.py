"""Read what a deployment's steps have said, in pieces, from where one has come to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

from django.db import connection
from django.db.models import QuerySet

from provisioning.models import Deployment, LogChunk, Step
from provisioning.models.deployments import TERMINAL_STATUSES
from provisioning.models.steps import UNFINISHED_STEP_STATUSES
from provisioning.services.logs.announcing import News
from provisioning.services.logs.cursor import Cursor, Place

CHUNKS_AT_ONCE = 20
STEPS_AT_ONCE = 20

_NEXT_SQL = """
SELECT chunk.step_id, chunk.attempt, chunk.sequence, chunk.stream, chunk.level, chunk.text,
       chunk.created_at
FROM unnest(%s::bigint[], %s::int[], %s::int[]) WITH ORDINALITY
    AS seen (step_id, attempt, sequence, position)
CROSS JOIN LATERAL (
    SELECT * FROM provisioning_logchunk log
    WHERE log.step_id = seen.step_id AND (log.attempt, log.sequence) > (seen.attempt, seen.sequence)
        AND (%s::timestamptz IS NULL OR log.created_at >= %s)
    ORDER BY log.attempt, log.sequence LIMIT %s
) AS chunk
ORDER BY seen.position, chunk.attempt, chunk.sequence LIMIT %s
"""

_ENDS_SQL = """
SELECT step.id, newest.attempt, newest.sequence
FROM unnest(%s::bigint[]) AS step (id)
CROSS JOIN LATERAL (
    SELECT log.attempt, log.sequence FROM provisioning_logchunk log WHERE log.step_id = step.id
    ORDER BY log.attempt DESC, log.sequence DESC LIMIT 1
) AS newest
"""


class StepSeen(NamedTuple):
    """A step as it was when it was last looked at."""

    id: int
    action: str
    resource: str
    status: str
    attempt: int

    @property
    def finished(self) -> bool:
        """Tell whether nothing more can come of it."""
        return self.status not in UNFINISHED_STEP_STATUSES


class Entry(NamedTuple):
    """A chunk of a log: what a step said at a time."""

    step: StepSeen
    attempt: int
    sequence: int
    stream: str
    level: str
    text: str
    at: datetime

    @classmethod
    def of(cls, chunk: LogChunk, step: StepSeen) -> Entry:
        """Return the entry of a stored chunk."""
        said = (chunk.stream, chunk.level, chunk.text, chunk.created_at)
        return cls(step, chunk.attempt, chunk.sequence, *said)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "at": self.at.isoformat(),
            "step": self.step.id,
            "resource": self.step.resource,
            "action": self.step.action,
            "attempt": self.attempt,
            "stream": self.stream,
            "level": self.level,
            "text": self.text,
        }


class Piece(NamedTuple):
    """What one reading found.

    `changed` says that the deployment or a step has another status than before, `more` that there
    is more to read at once, and `over` that nothing more will come.
    """

    entries: Sequence[Entry]
    changed: bool
    more: bool
    over: bool


class LogReader:
    """Read a deployment's log, or one step's, on and on: each reading begins where the last ended.

    Statuses are read before chunks, so nothing is missed of a step that was seen to have ended.
    """

    def __init__(
        self,
        deployment_id: int,
        *,
        cursor: Cursor | None = None,
        step_id: int | None = None,
        since: datetime | None = None,
    ) -> None:
        self.cursor = cursor or Cursor()
        self.status = self.reason = ""
        self._rows = Step.objects.filter(deployment=deployment_id)
        if step_id is not None:
            self._rows = self._rows.filter(pk=step_id)
        self.deployment_id, self.step_id, self._since = deployment_id, step_id, since
        self._answers: list[tuple[int, str]] = []
        self._steps: dict[int, StepSeen] = {}
        self._unread: set[int] = set()
        self._told: object = None

    def read(self, news: News) -> Piece:
        """Read a few chunks of the steps that the news name, and of those left over before.

        Raise Deployment.DoesNotExist.
        """
        self._look(news)
        entries = self._next()
        statuses = (self.status, self.reason, self._answers, dict(self._steps))
        changed, self._told = statuses != self._told, statuses
        more = bool(self._unread)
        return Piece(entries, changed, more, over=not more and self._has_ended())

    def _look(self, news: News) -> None:
        """Look at what the news name."""
        if news.everything:
            deployment = Deployment.objects.only("status", "status_reason")
            found = deployment.get(pk=self.deployment_id)
            self.status, self.reason = found.status, found.status_reason
            self._answers = list(found.approvals.order_by("pk").values_list("pk", "status"))
            seen = self._steps = steps_seen(self._rows)
        else:
            seen = steps_seen(self._rows.filter(pk__in=news.steps)) if news.steps else {}
            self._steps |= seen
        self._unread |= {pk for pk in seen if not self.cursor.is_done(pk)}

    def _next(self) -> list[Entry]:
        """Read the next chunks in the steps' order, and move the cursor."""
        steps = list(islice((pk for pk in self._steps if pk in self._unread), STEPS_AT_ONCE))
        entries = self._chunks(steps) if steps else []
        for entry in entries:
            self.cursor.advance(entry.step.id, (entry.attempt, entry.sequence))
        if len(entries) == CHUNKS_AT_ONCE:
            steps = steps[: steps.index(entries[-1].step.id)]
        for pk in steps:
            self._unread.discard(pk)
            if self._steps[pk].finished:
                self.cursor.finish(pk)
        return entries

    def _chunks(self, steps: Sequence[int]) -> list[Entry]:
        attempts, sequences = zip(*map(self.cursor.place, steps), strict=True)
        values = [list(steps), list(attempts), list(sequences), self._since, self._since]
        with connection.cursor() as cursor:
            cursor.execute(_NEXT_SQL, [*values, CHUNKS_AT_ONCE, CHUNKS_AT_ONCE])
            return [Entry(self._steps[step], *row) for step, *row in cursor.fetchall()]

    def _has_ended(self) -> bool:
        ended = self.step_id is not None or self.status in TERMINAL_STATUSES
        return ended and all(step.finished for step in self._steps.values())


def read_all(
    deployment_id: int, *, step_id: int | None = None, since: datetime | None = None
) -> Iterator[Sequence[Entry]]:
    """Read what has been said by now, piece by piece and step by step."""
    reader = LogReader(deployment_id, step_id=step_id, since=since)
    piece = reader.read(News(everything=True))
    yield piece.entries
    while piece.more:
        piece = reader.read(News())
        yield piece.entries


class Tail(NamedTuple):
    """The end of a log: its last chunks, whether there are more before them, and where it ends."""

    entries: Sequence[Entry]
    shortened: bool
    cursor: Cursor


def read_tail(
    deployment_id: int, *, step_id: int | None = None, chunks: int, characters: int
) -> Tail:
    """Read about so much of the end of a log, in the order in which it was said."""
    rows = Step.objects.filter(deployment=deployment_id)
    steps = steps_seen(rows if step_id is None else rows.filter(pk=step_id))
    ends, cursor = _ends(list(steps)), Cursor()
    for pk, place in ends.items():
        cursor.advance(pk, place)
    for step in steps.values():
        if step.finished:
            cursor.finish(step.id)
    entries: list[Entry] = []
    newest = LogChunk.objects.filter(step_id__in=ends).order_by("-created_at", "-pk")
    for chunk in newest[: chunks + 1]:
        if len(entries) == chunks or characters <= 0:
            return Tail(entries[::-1], True, cursor)
        if (chunk.attempt, chunk.sequence) <= ends[chunk.step_id]:  # others are read next
            entries.append(Entry.of(chunk, steps[chunk.step_id]))
            characters -= len(chunk.text)
    return Tail(entries[::-1], False, cursor)


def steps_seen(rows: QuerySet[Step]) -> dict[int, StepSeen]:
    """Return steps by their id, in the plan's order."""
    fields = rows.values_list("pk", "action", "resource__uid", "status", "attempt")
    return {row[0]: StepSeen(*row) for row in fields.order_by("position", "pk")}


def _ends(steps: list[int]) -> dict[int, Place]:
    with connection.cursor() as cursor:
        cursor.execute(_ENDS_SQL, [steps])
        return {step: (attempt, sequence) for step, attempt, sequence in cursor.fetchall()}
