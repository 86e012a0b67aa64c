"""Keep the processes of one worker command running: replace what died or went quiet, and end in order."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess

from django import db
from setproctitle import setproctitle

from provisioning.exceptions import ConductorError
from provisioning.queue.cluster import Pulse, run_cluster
from provisioning.queue.lifeline import Lifeline

logger = logging.getLogger(__name__)

QUIET_SECONDS = 20.0
"""A process that has not been heard for so long no longer does its work."""
GRACE_SECONDS = 10.0
"""Idle processes that were told to end are given so long."""
MOST_REPLACEMENTS = 5
SETTLED_SECONDS = 10.0
"""So many replacements in a row, none of which was well for so long, mean that replacing is no help."""
FIRST_PAUSE = 0.5
"""Seconds before the second replacement in a row; it doubles with each."""
_ROUND_SECONDS = 0.2

_fork = multiprocessing.get_context("fork")


class WorkerFailedError(ConductorError):
    """Say that a part of the worker cannot be kept running."""


class Part:
    """Run a function in a process group of its own, and replace it when it fails.

    The function is called with the lifeline that tells it to end and the pulse in which it shows
    that it is well; `processes` is how many it starts itself and reports on in that pulse.
    """

    def __init__(
        self, name: str, run: Callable[[Lifeline, Pulse], None], processes: int = 0
    ) -> None:
        self.name = name
        self._run, self._processes = run, processes
        self._failures = 0
        self._start_at = self._started_at = 0.0
        self.process: BaseProcess | None = None

    def start(self) -> None:
        """Fork the process; it shares no database connection with this one."""
        db.connections.close_all()
        self.lifeline, self.pulse = Lifeline(), Pulse(self._processes)
        process = _fork.Process(target=self._main, name=self.name)
        gc.freeze()  # what both share is not copied by the child's collector
        process.start()
        gc.unfreeze()
        assert process.pid  # noqa: S101 -- it was started
        with suppress(OSError):  # the child does the same; whoever is first
            os.setpgid(process.pid, process.pid)
        self.process, self.pid = process, process.pid
        self._started_at = time.monotonic()

    def _main(self) -> None:
        with suppress(OSError):
            os.setpgid(0, 0)
        setproctitle(f"conductor worker: {self.name}")
        self._run(self.lifeline, self.pulse)

    def look(self) -> None:
        """Replace the process if it died or is quiet; raise WorkerFailedError if that never helps."""
        if self.process is None:
            if time.monotonic() >= self._start_at:
                self.start()
        elif self._has_died():
            self._replace(f"died (exit code {self._end()})")
        elif (quiet := self.pulse.oldest()) > QUIET_SECONDS:
            self.kill()
            self._replace(f"was not heard of for {quiet:.0f} s and was killed")

    def _has_died(self) -> bool:
        """Return whether the process died, leaving it unburied: its pid still names its group."""
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.pid, options) is not None

    def _end(self) -> int | None:
        """Bury the dead process; its own children end by themselves after what they have begun."""
        process, self.process = self.process, None
        if process is None:
            return None
        process.join()
        self.lifeline.close()
        return process.exitcode

    def _replace(self, why: str) -> None:
        now = time.monotonic()
        lasted = now - self._started_at - self.pulse.oldest() > SETTLED_SECONDS
        self._failures = 1 if lasted else self._failures + 1
        if self._failures > MOST_REPLACEMENTS:
            raise WorkerFailedError(
                f"{self.name} {why}, and {MOST_REPLACEMENTS} replacements did not last. "
                "The lines above say what went wrong; start the worker again once it is mended."
            )
        self._start_at = now + (2 ** (self._failures - 1) - 1) * FIRST_PAUSE
        logger.warning("%s %s; it is replaced.", self.name, why)

    def kill(self) -> None:
        """End the process and those it has started at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._end()

    def ended(self) -> bool:
        """Return whether the process, told to stop, is gone."""
        if self.process is not None and self._has_died():
            self._end()
        return self.process is None


def cluster(queue: str, processes: int, *, paused: Callable[[], bool]) -> Part:
    """Return the part that works on one queue, and takes nothing new while `paused` says so."""

    def run(lifeline: Lifeline, pulse: Pulse) -> None:
        run_cluster(queue, processes, lifeline, pulse, paused)

    return Part(f"The cluster of queue {queue}", run, processes)


class Watchdog:
    """Start parts, watch them until `stop()` is called, and end them in order."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._asked = 0

    def stop(self) -> None:
        """Let every part end what it has begun; the second time, end it at once."""
        self._asked += 1

    def run(self) -> bool:
        """Keep the parts running until stopped; return whether all ended what they had begun.

        Raises WorkerFailedError, with everything ended, if a part cannot be kept running.
        """
        try:
            while not self._asked:
                for part in self._parts:
                    part.look()
                time.sleep(_ROUND_SECONDS)
            return self._drain()
        finally:
            for part in self._parts:
                if not part.ended():
                    part.kill()

    def _drain(self) -> bool:
        for part in self._parts:
            if part.process is not None:
                part.lifeline.cut()
        idle_since = time.monotonic()
        while left := [part for part in self._parts if not part.ended()]:
            if any(part.pulse.any_busy() for part in left):
                idle_since = time.monotonic()
            if self._asked > 1 or time.monotonic() - idle_since > GRACE_SECONDS:
                return False
            time.sleep(0.05)
        return True
