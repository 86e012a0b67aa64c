"""Store what a step's tool says: whole lines in chunks, without secrets, and not without end."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import Any

from provisioning.drivers.base import LeaseLostError
from provisioning.drivers.supervision import printable
from provisioning.models import LogChunk, Step
from provisioning.services.outputs import MASK

FLUSH_SECONDS = 0.05
CHUNK_CHARACTERS = 64 * 1024
MOST_CHARACTERS = 4 * 1024 * 1024
TOO_LONG = "… The log of this attempt is too long: the rest is left out.\n"
SHORT = 4
"""Values with fewer characters are masked only where they stand alone."""


class Mask:
    """Know the secrets of one run, and take them out of texts.

    A secret of several lines is masked line by line, so that no secret ever spans a line's end.
    """

    def __init__(self) -> None:
        self._secrets: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self.longest = 0

    def add(self, value: Any) -> None:
        """Learn a secret: a text, a number, or every such value in a list or an object."""
        learned = set(_texts(value)) - self._secrets
        if learned:
            self._secrets |= learned
            ordered = sorted(self._secrets, key=lambda text: (-len(text), text))
            self._pattern = re.compile("|".join(_pattern(text) for text in ordered))
            self.longest = len(ordered[0])

    @property
    def known(self) -> int:
        """Return how many secrets are known by now."""
        return len(self._secrets)

    def hide(self, text: str) -> str:
        """Return the text with every secret in it replaced."""
        return self._pattern.sub(MASK, text) if self._pattern else text

    def occurs_in(self, value: Any) -> bool:
        """Tell whether a JSON value contains a secret."""
        return any(self.hide(text) != text for text in _texts(value))

    def cut(self, text: str, at: int) -> int:
        """Return the first place at or after `at` where cutting the text cuts no secret in two."""
        for match in self._pattern.finditer(text) if self._pattern else ():
            if match.start() < at < match.end():
                return match.end()
        return at


def _texts(value: Any) -> Iterable[str]:
    """Walk the texts that would give a value away, as they are and as JSON writes them."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        lines = [line.strip() for line in value.splitlines()]
        several = len(lines) > 1
        for line in lines:
            if line and (not several or len(line) >= SHORT):
                yield line
                yield line.replace("\\", "\\\\").replace('"', '\\"')
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)


def _pattern(text: str) -> str:
    escaped = re.escape(text)
    return escaped if len(text) >= SHORT else rf"(?<!\w){escaped}(?!\w)"


class Log:
    """Write one attempt's log; call `flush_if_due` now and then, and `close` at the end.

    Lines are held back until they are complete, so a secret that arrives in pieces is seen whole.
    What was stored before a secret was known is masked at the end: a tool may say a value before
    its state tells that this is a secret.
    """

    def __init__(self, step: Step, mask: Mask) -> None:
        self._step = step
        self._attempt = step.attempt
        self._mask = mask
        self._known = 0
        self._parts: dict[tuple[str, str], str] = {}
        self._ready: list[tuple[str, str, str]] = []
        self._sequence = 0
        self._written = 0
        self._size = 0
        self._flushed = time.monotonic()

    def add(self, text: str, stream: str, level: str) -> None:
        """Take a piece of text; it need not be a whole line."""
        place = (stream, level)
        *lines, rest = (self._parts.get(place, "") + text).split("\n")
        if len(rest) > CHUNK_CHARACTERS:
            end = self._mask.cut(rest, len(rest) - self._mask.longest)
            self._take(rest[:end], stream, level)
            rest = rest[end:]
        if lines:
            # The start of a line may have been taken already, but never half of a secret.
            self._take("\n".join(lines) + "\n", stream, level)
        self._parts[place] = rest

    def flush_if_due(self) -> None:
        """Store what is ready if that is much, or was not done for a while."""
        waited = time.monotonic() - self._flushed
        if self._size >= CHUNK_CHARACTERS or (self._ready and waited >= FLUSH_SECONDS):
            self.flush()

    def flush(self) -> None:
        """Store what is ready; raise LeaseLostError if the step has gone on to another attempt.

        It may be called again after a failure: what was stored already is not stored twice.
        """
        if not self._ready:
            return
        if not Step.objects.filter(pk=self._step.pk, attempt=self._attempt).exists():
            self._ready = []
            raise LeaseLostError(f"Step {self._step.pk} is another worker's now.")
        chunks = [
            LogChunk(
                step_id=self._step.pk,
                attempt=self._attempt,
                sequence=sequence,
                stream=stream,
                level=level,
                text=text,
            )
            for sequence, (stream, level, text) in enumerate(self._ready, self._sequence)
        ]
        known = self._mask.known
        LogChunk.objects.bulk_create(chunks, ignore_conflicts=True)
        if not self._sequence and self._attempt == 1:
            self._known = known
        self._sequence += len(chunks)
        self._ready, self._size = [], 0
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Store everything, unfinished lines too."""
        for (stream, level), rest in self._parts.items():
            if rest:
                self._take(rest, stream, level)
                self._parts[stream, level] = ""
        self.flush()
        if self._mask.known > self._known:
            self._mask_stored()

    def _mask_stored(self) -> None:
        """Mask what the step's attempts have stored, also one whose worker died in the middle."""
        changed = []
        for chunk in LogChunk.objects.filter(step_id=self._step.pk):
            hidden = self._mask.hide(chunk.text)
            if hidden != chunk.text:
                chunk.text = hidden
                changed.append(chunk)
        LogChunk.objects.bulk_update(changed, ["text"])
        self._known = self._mask.known

    def _take(self, text: str, stream: str, level: str) -> None:
        if self._written > MOST_CHARACTERS:
            return
        text = self._mask.hide(printable(text))
        self._written += len(text)
        if self._written > MOST_CHARACTERS:
            text = text[: MOST_CHARACTERS - self._written] + "\n" + TOO_LONG
        self._size += len(text)
        if self._ready and self._ready[-1][:2] == (stream, level):
            text = self._ready.pop()[2] + text
        self._ready.append((stream, level, text))
