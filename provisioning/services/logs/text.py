"""A log as text for people: whose turn it is as a heading, and what it said below."""

from __future__ import annotations

from collections.abc import Callable

from provisioning.services.logs.reading import Entry


class LogText:
    """Turn entries into text, one after the other."""

    def __init__(self, heading: Callable[[str], str] = str) -> None:
        self._heading = heading
        self._speaker: tuple[int, int] | None = None
        self._in_line = False

    def of(self, entry: Entry) -> str:
        """Return an entry's text, with a heading if another step or attempt spoke before."""
        text = ""
        if (entry.step.id, entry.attempt) != self._speaker:
            self._speaker = entry.step.id, entry.attempt
            title = f"{entry.step.action} {entry.step.resource} (attempt {entry.attempt})"
            text = ("\n" if self._in_line else "") + self._heading(title) + "\n"
            self._in_line = False
        lines = entry.text.split("\n")
        ended = not lines[-1]
        body = "\n  ".join(lines[:-1] if ended else lines)
        text += ("" if self._in_line else "  ") + body + ("\n" if ended else "")
        self._in_line = not ended
        return text
