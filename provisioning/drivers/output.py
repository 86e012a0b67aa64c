"""Read what a tool prints, as it prints it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

LONGEST_LINE = 16 * 1024 * 1024
AT_ONCE = 64 * 1024
"""How many bytes of output are read before it is looked whether the tool must stop."""

_ESCAPE_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)|[@-Z\\-_])"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Return the text without escape sequences and control characters other than tab and newline.

    Those that turn the direction of writing go too, and halves of surrogate pairs.
    """
    return _CONTROL.sub("", _ESCAPE_SEQUENCE.sub("", text.replace("\r\n", "\n")))


class Tail:
    """Read a growing file of output line by line.

    `more` tells that there was more to read than is read at once.
    """

    def __init__(self, path: Path) -> None:
        self._source: BinaryIO = path.open("rb")
        self._rest = bytearray()
        self._dropped = 0
        self.more = False

    def lines(self, *, last: bool = False) -> Iterator[str]:
        """Yield complete lines since the last call, of so much output that one can look up from it.

        With `last`, all that are left, and an unfinished one too.
        """
        self.more = True
        while self.more:
            chunk = self._source.read(AT_ONCE)
            self.more = len(chunk) == AT_ONCE
            first, *others = chunk.split(b"\n")
            self._rest += first
            for line in others:
                yield self._text()
                self._rest += line
            if len(self._rest) > LONGEST_LINE:
                self._dropped += len(self._rest)
                self._rest.clear()
            if not last:
                return
        if self._rest or self._dropped:
            yield self._text()

    def _text(self) -> str:
        """Return the line that has been read, and begin the next one."""
        text = self._rest.decode("utf-8", "replace")
        if self._dropped:
            size = self._dropped + len(self._rest)
            text, self._dropped = f"[a line too long for the log: {size} bytes left out]", 0
        self._rest.clear()
        return text

    def close(self) -> None:
        """Close the file."""
        self._source.close()
