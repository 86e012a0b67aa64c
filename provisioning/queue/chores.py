"""What cannot wait for a task, and a worker does every few seconds in a process of its own.

Heartbeats and leases: django-q2's scheduler looks every 30 seconds only. What may wait a minute is in
`schedules`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from django.db import InterfaceError, OperationalError, close_old_connections, connection

from provisioning.queue.cluster import Pulse
from provisioning.queue.lifeline import Lifeline
from provisioning.queue.watchdog import Part

logger = logging.getLogger(__name__)


class Chore(NamedTuple):
    """Call a function every so many seconds."""

    every: float
    call: Callable[[], object]


def chores(*wanted: Chore, after_outage: Callable[[float], object]) -> Part:
    """Return the part that does the chores, one after the other, each as often as it says.

    One that fails is logged and tried again at its next time. One that hangs stops all of them, so
    the watchdog replaces the process. When the database was lost and can be reached again,
    `after_outage` is called with the seconds since that was noticed.
    """

    def run(lifeline: Lifeline, pulse: Pulse) -> None:
        lifeline.adopt()
        lifeline.let_go_on_signals()
        outage = _Outage(after_outage)
        due = [0.0] * len(wanted)
        while not lifeline.wait(max(0.0, min(min(due) - time.monotonic(), 1.0))):
            for number, chore in enumerate(wanted):
                pulse.beat(0)
                if time.monotonic() >= due[number]:
                    if _is_disconnected():
                        outage.note(False)
                    outage.note(_do(chore))
                    due[number] = time.monotonic() + chore.every

    return Part("The process for regular chores", run)


class _Outage:
    """Notice when the database cannot be reached, and tell of it when it can be again."""

    def __init__(self, tell: Callable[[float], object]) -> None:
        self._tell = tell
        self._began: float | None = None

    def note(self, reached: bool) -> None:
        if not reached:
            self._began = self._began or time.monotonic()
        elif self._began is not None:
            seconds, self._began = time.monotonic() - self._began, None
            _do(Chore(0, lambda: self._tell(seconds)))


def _is_disconnected() -> bool:
    """Tell whether the connection of the chore before has been broken since."""
    return connection.connection is not None and not connection.is_usable()


def _do(chore: Chore) -> bool:
    """Call a chore; return whether it could reach the database."""
    close_old_connections()
    try:
        chore.call()
    except (OperationalError, InterfaceError) as error:
        logger.warning("A regular chore could not reach the database: %s", error)
        return False
    except Exception:
        logger.exception("A regular chore failed; it is tried again in %g s.", chore.every)
    return True
