"""Read the lines that `terraform apply -json` writes.

They are for people only: a program that the module starts can write such lines too, so nothing is
decided by them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from provisioning.drivers.base import Run
from provisioning.drivers.supervision import printable

_LEVELS = {"error": "error", "warn": "warning", "debug": "debug", "trace": "debug"}
_QUIET = ("version", "outputs")
_SHOWN_ERRORS = 5


class Messages:
    """Log the tool's messages, keep its errors and plans, and hand a dumped state to `rescue`."""

    def __init__(self, run: Run, rescue: Callable[[bytes], object]) -> None:
        self._run = run
        self._rescue = rescue
        self._plain: list[str] = []
        self.errors: list[str] = []
        self.planned: list[str] = []

    def line(self, stream: str, line: str) -> None:
        """Take one line of output."""
        message = _object(line)
        if message is None:
            self._text(stream, line)
        elif "state" in message and "type" not in message:
            # Terraform's last resort when it can write the state nowhere: every secret in clear.
            self._rescue(json.dumps(message["state"]).encode())
            self._run.log("Terraform could not write its state; it was rescued.\n", level="warning")
        elif message.get("type") == "diagnostic":
            self._diagnostic(message)
        elif message.get("type") not in _QUIET:
            if message.get("type") == "planned_change":
                self._plan(message.get("change"))
            level = _LEVELS.get(str(message.get("@level")), "info")
            self._run.log(printable(str(message.get("@message", ""))) + "\n", level=level)

    def summary(self) -> str:
        """Return what went wrong as text, from the diagnostics or else from the last plain lines."""
        shown = self.errors[:_SHOWN_ERRORS] or self._plain[-_SHOWN_ERRORS:]
        more = len(self.errors) - _SHOWN_ERRORS
        lines = [*shown, *([f"… and {more} more."] if more > 0 else [])]
        return "\n".join(lines) or "it said nothing."

    def _text(self, stream: str, line: str) -> None:
        text = printable(line)
        if text.strip():
            self._plain = [*self._plain[-2 * _SHOWN_ERRORS :], text.strip()]
        self._run.log(text + "\n", stream=stream)

    def _plan(self, change: Any) -> None:
        if isinstance(change, dict) and isinstance(change.get("resource"), dict):
            address = printable(str(change["resource"].get("addr")))
            self.planned.append(f"{change.get('action')} {address}")

    def _diagnostic(self, message: dict[str, Any]) -> None:
        diagnostic = message.get("diagnostic")
        if not isinstance(diagnostic, dict):
            return
        text = printable(_sentence(diagnostic))
        severity = diagnostic.get("severity")
        if severity == "error":
            self.errors.append(text)
        self._run.log(text + "\n", level="error" if severity == "error" else "warning")


def _object(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None


def _sentence(diagnostic: dict[str, Any]) -> str:
    place = diagnostic.get("range")
    where = ""
    if isinstance(place, dict):
        start = place.get("start")
        line = f":{start.get('line')}" if isinstance(start, dict) else ""
        where = f"{place.get('filename')}{line}: "
    parts = [str(diagnostic.get("summary", "")), str(diagnostic.get("detail", ""))]
    text = where + ": ".join(part for part in parts if part)
    address = diagnostic.get("address")
    return f"{text} ({address})" if address else text
