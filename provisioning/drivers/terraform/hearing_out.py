"""Let a short command end although its run is told to stop."""

from __future__ import annotations

import time
from typing import Any, cast

from provisioning.drivers.base import Run
from provisioning.drivers.supervisor import LEASE_LOST

PATIENCE_SECONDS = 60.0


class _HearingOut:
    """Be another run in all but this: of being told to stop it hears a minute later."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._told_at: float | None = None
        now, deadline = time.monotonic(), run.deadline
        self.deadline = None if deadline is None else max(deadline, now) + PATIENCE_SECONDS

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)

    def should_stop(self) -> str | None:
        reason = self._run.should_stop()
        if reason is None or reason == LEASE_LOST:
            return reason
        if self._told_at is None:
            self._told_at = time.monotonic()
        return reason if time.monotonic() - self._told_at >= PATIENCE_SECONDS else None


def hearing_out(run: Run) -> Run:
    """Return the run as one that at once hears of the loss of its lease alone.

    All else it hears after PATIENCE_SECONDS, so that what hangs is stopped nevertheless.
    """
    return cast(Run, _HearingOut(run))
