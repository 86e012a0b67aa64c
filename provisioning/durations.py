"""Lengths of time as people write them: `90`, `"45s"`, `"30m"`, `"1h30m"`."""

from __future__ import annotations

import re
from typing import Any

from provisioning.exceptions import ConductorError

LONGEST_SECONDS = 30 * 24 * 3600

_WRITTEN = re.compile(r"(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?")
_UNITS = {"h": 3600, "min": 60, "s": 1}


class DurationError(ConductorError):
    """Say that something is no length of time."""


def read_duration(value: Any) -> int:
    """Return the seconds of a number of seconds or a text such as `30m`; raise DurationError."""
    seconds = _seconds(value)
    if seconds is None or not 0 < seconds <= LONGEST_SECONDS:
        raise DurationError(
            f"{value!r} is no length of time: write seconds, or hours, minutes and seconds like 30m "
            f"or 1h30m; at least 1s and at most {LONGEST_SECONDS // 3600}h."
        )
    return seconds


def duration_text(seconds: int) -> str:
    """Write a length of time for a person, such as `1 h 30 min`."""
    parts = []
    for unit, size in _UNITS.items():
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts) or "0 s"


def _seconds(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str) or not value.isascii():
        return None
    if value.isdecimal():
        return int(value) if len(value) < 10 else None
    written = _WRITTEN.fullmatch(value)
    if written is None or not value:
        return None
    hours, minutes, seconds = (int(part or 0) for part in written.groups())
    return hours * 3600 + minutes * 60 + seconds
