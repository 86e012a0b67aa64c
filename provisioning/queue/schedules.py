"""What a worker does again and again, beside the tasks of its queues.

It has a process of its own: django-q2's scheduler looks every 30 seconds only, and a task would wait
behind long steps while every worker process is busy, which is when leases run out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from django.db import InterfaceError, OperationalError, close_old_connections

from provisioning.queue.cluster import Pulse
from provisioning.queue.lifeline import Lifeline
from provisioning.queue.watchdog import Part

logger = logging.getLogger(__name__)


class Chore(NamedTuple):
    """Call a function every so many seconds."""

    every: float
    call: Callable[[], object]


def chores(*wanted: Chore) -> Part:
    """Return the part that does the chores, one after the other, each as often as it says.

    One that fails is logged and tried again at its next time. One that hangs stops all of them, so
    the watchdog replaces the process.
    """

    def run(lifeline: Lifeline, pulse: Pulse) -> None:
        lifeline.adopt()
        lifeline.let_go_on_signals()
        due = [0.0] * len(wanted)
        while not lifeline.wait(max(0.0, min(min(due) - time.monotonic(), 1.0))):
            for number, chore in enumerate(wanted):
                pulse.beat(0)
                if time.monotonic() >= due[number]:
                    _do(chore)
                    due[number] = time.monotonic() + chore.every

    return Part("The process for regular chores", run)


def _do(chore: Chore) -> None:
    close_old_connections()
    try:
        chore.call()
    except (OperationalError, InterfaceError) as error:
        logger.warning("A regular chore could not reach the database: %s", error)
    except Exception:
        logger.exception("A regular chore failed; it is tried again in %g s.", chore.every)
