"""Read the lines that `terraform apply -json` writes.

They are for people only: a program that the module starts can write such lines too, so nothing is
decided by them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from provisioning.drivers.base import Run
from provisioning.drivers.output import printable
from provisioning.drivers.sandbox import is_starved
from provisioning.drivers.terraform.keeper import lock_in
from provisioning.drivers.terraform.state import place_of

_LEVELS = {"error": "error", "warn": "warning", "debug": "debug", "trace": "debug"}
_QUIET = ("version", "outputs")
_SHOWN_ERRORS = 5


class Messages:
    """Log the tool's messages, keep its errors and plans, and hand a dumped state to `rescue`.

    `hear` gets every other message that is one.
    """

    def __init__(
        self,
        run: Run,
        rescue: Callable[[bytes], object],
        hear: Callable[[Mapping[str, Any]], object] = lambda message: None,
    ) -> None:
        self._run = run
        self._rescue = rescue
        self._hear = hear
        self._plain: list[str] = []
        self.errors: list[str] = []
        self.planned: list[str] = []
        self.starved = False

    def line(self, stream: str, line: str) -> None:
        """Take one line of output."""
        message = _object(line)
        if message is None:
            self._text(stream, line)
        elif isinstance(message.get("state"), dict):
            # Terraform's last resort when it can write the state nowhere: every secret in clear. Its
            # type is `log`, or there is none.
            start, end = place_of(line, "state")
            self._rescue(line[start:end].encode())
            self._run.log("Terraform could not write its state; it was rescued.\n", level="warning")
        else:
            self._hear(message)
            self._message(message)

    def _message(self, message: dict[str, Any]) -> None:
        if message.get("type") == "diagnostic":
            self._diagnostic(message)
        elif message.get("type") not in _QUIET:
            if message.get("type") == "planned_change":
                self._plan(message.get("change"))
            level = _LEVELS.get(str(message.get("@level")), "info")
            self._run.log(printable(str(message.get("@message", ""))) + "\n", level=level)

    @property
    def locked(self) -> bool:
        """Tell whether a lock was in the tool's way."""
        return lock_in(self.summary()) is not None

    def summary(self) -> str:
        """Return what went wrong as text, from the diagnostics or else from the last plain lines."""
        shown = self.errors[:_SHOWN_ERRORS] or self._plain[-_SHOWN_ERRORS:]
        more = len(self.errors) - _SHOWN_ERRORS
        lines = [*shown, *([f"… and {more} more."] if more > 0 else [])]
        return "\n".join(lines) or "it said nothing."

    def _text(self, stream: str, line: str) -> None:
        text = printable(line)
        if text.strip():
            self.starved = self.starved or is_starved(text)
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
        self.starved = self.starved or is_starved(text)
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
