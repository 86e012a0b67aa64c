"""One queue's processes: django-q2's sentinel and workers, with the database as their only queue.

django-q2 moves tasks from the database through a pusher process and a shared in-memory queue to its
workers, and results through another to a monitor process. A process that is killed while it holds one
of those queues' locks stops the cluster for ever, and tasks wait in memory behind a busy worker. Here
each worker claims and acknowledges its own rows in the database: no pusher, no monitor, nothing
shared that a killed process could leave locked, and a row is claimed only by a worker that is idle.

Only this file leans on django-q2's insides: the constructor arguments and overridden methods of
`Sentinel`, and the few methods that its `worker` calls on its two queues and its timer.
"""

from __future__ import annotations

import logging
import math
import os
import time
import uuid
from collections.abc import Callable, MutableSequence
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from multiprocessing.sharedctypes import RawArray, RawValue
from threading import Event
from typing import Any

import psycopg
from django import db
from django_q.cluster import Sentinel
from django_q.conf import Conf
from django_q.monitor import save_task
from django_q.signing import BadSignature, SignedPackage
from django_q.worker import worker

from provisioning.exceptions import ConductorError
from provisioning.queue.broker import LOOK_AGAIN, NotifyBroker
from provisioning.queue.lifeline import Lifeline

logger = logging.getLogger(__name__)

CHECKED_WITH = "1.11."
BUSY = math.inf
_STOP = "STOP"  # what django-q2's loops end at
_NO_TIMEOUT = -1


class UnsupportedQueueError(ConductorError):
    """Say that the installed django-q2 is not one whose insides this was checked with."""


def check_version() -> None:
    """Raise UnsupportedQueueError unless django-q2 is a version this was checked with."""
    installed = version("django-q2")
    if not installed.startswith(CHECKED_WITH):
        raise UnsupportedQueueError(
            f"django-q2 {installed} is installed, but Conductor's worker was checked with "
            f"{CHECKED_WITH}* only. Install that one, or run `make faults` with the new one and set "
            "CHECKED_WITH in provisioning/queue/cluster.py."
        )


class Pulse:
    """Share with the watchdog when each process of a cluster last showed that it is well.

    Place 0 is the sentinel's, the others the workers'; a worker with a task is BUSY for as long as
    it takes. Plain memory without a lock, so that a killed process can block nobody.
    """

    def __init__(self, processes: int) -> None:
        self._beats: MutableSequence[float] = RawArray("d", processes + 1)
        for place in range(processes + 1):
            self.beat(place)

    def beat(self, place: int) -> None:
        """Note that the process is well and idle."""
        self._beats[place] = time.monotonic()

    def busy(self, place: int) -> None:
        """Note that the process has begun a task."""
        self._beats[place] = BUSY

    def oldest(self) -> float:
        """Return for how many seconds the quietest process has not been heard."""
        return time.monotonic() - min(list(self._beats))

    def any_busy(self) -> bool:
        """Return whether a worker has a task."""
        return BUSY in list(self._beats)


class _Timer:
    """Stand in for the timer between sentinel and worker, whose lock a killed worker would keep."""

    def __init__(self) -> None:
        self._seconds = RawValue("f", _NO_TIMEOUT)

    @property
    def value(self) -> float:
        return float(self._seconds.value)

    @value.setter
    def value(self, seconds: float) -> None:
        self._seconds.value = seconds

    def get_lock(self) -> AbstractContextManager[None]:
        return nullcontext()


class _Absent:
    """Stand in for the pusher and the monitor, for which there is nothing left to do."""

    pid = 0

    def __init__(self, ended: Any) -> None:
        self._ended = ended

    def is_alive(self) -> bool:
        return not self._ended.is_set()


class _Claims:
    """Stand in for the task queue: a worker that asks for a task claims a row in the database."""

    def __init__(
        self,
        broker: NotifyBroker,
        pulse: Pulse,
        leash: Lifeline,
        paused: Callable[[], bool],
        place: int = 0,
    ) -> None:
        self._broker, self._pulse, self._leash, self._place = broker, pulse, leash, place
        self._paused = paused
        self._asked_at = -math.inf
        self._worker_pid = 0

    def get(self) -> dict[str, Any] | str:
        """Return the next task, or STOP when this worker should end."""
        if self._worker_pid != os.getpid():
            self._settle_in()
        while not self._leash.is_set():
            self._pulse.beat(self._place)
            if self._is_paused():
                self._leash.wait(LOOK_AGAIN)
                continue
            for row, payload in self._broker.dequeue() or ():
                task = self._open(row, payload)
                if task is not None:
                    self._pulse.busy(self._place)
                    self._asked_at = -math.inf
                    return task
        return _STOP

    def _is_paused(self) -> bool:
        """Ask after each task and each second, not between a row's announcement and its claim."""
        if time.monotonic() - self._asked_at < LOOK_AGAIN:
            return False
        try:
            paused = self._paused()
            if not paused:
                self._asked_at = time.monotonic()
            return paused
        except (db.Error, psycopg.Error, OSError):
            return False  # what claims a row then says that the database cannot be reached

    def _settle_in(self) -> None:
        """Make this freshly forked process a worker that ends after its task when it is signalled."""
        self._worker_pid = os.getpid()
        self._leash.adopt()
        self._broker.wakers = [self._leash.fileno()]
        self._leash.let_go_on_signals()

    def _open(self, row: int, payload: str) -> dict[str, Any] | None:
        try:
            task: dict[str, Any] = SignedPackage.loads(payload)
        except (TypeError, BadSignature):
            logger.error("Queue %s: row %s has a bad signature, so it is removed.", self._name, row)
            self._broker.fail(row)
            return None
        return task | {"cluster": self._name, "ack_id": row}

    @property
    def _name(self) -> str:
        return self._broker.list_key

    def put(self, _stop: str) -> None:
        """End all workers: the sentinel puts nothing else."""
        self._leash.cut()

    def close(self) -> None:
        self._leash.cut()

    def join_thread(self) -> None: ...

    def qsize(self) -> int:
        return 0

    def empty(self) -> bool:
        return not self._pulse.any_busy()


class _Results:
    """Stand in for the result queue: the worker itself acknowledges the task that it has ended."""

    def __init__(self, broker: NotifyBroker) -> None:
        self._broker = broker

    def put(self, task: dict[str, Any] | str) -> None:
        if isinstance(task, str):  # the sentinel's STOP for the monitor
            return
        if not task["success"]:
            logger.error("Queue %s: a task failed: %s", self._broker.list_key, task["result"])
        try:
            save_task(task, self._broker)
            self._broker.acknowledge(task["ack_id"])
        except (db.Error, psycopg.Error) as error:
            # Not acknowledged, it is shown again: harmless.
            logger.warning(
                "Queue %s: a task's end was not stored: %s", self._broker.list_key, error
            )
            self._broker.forget_connections()

    def close(self) -> None: ...

    def join_thread(self) -> None: ...

    def qsize(self) -> int:
        return 0

    def empty(self) -> bool:
        return True


class _StopEvent:
    """Let the sentinel stop when its lifeline is cut, and show with each round that it is well."""

    def __init__(self, lifeline: Lifeline, pulse: Pulse) -> None:
        self._lifeline, self._pulse = lifeline, pulse
        self.is_set = lifeline.is_set

    def wait(self, timeout: float) -> bool:
        self._pulse.beat(0)
        return self._lifeline.wait(timeout)


class ClaimingSentinel(Sentinel):  # type: ignore[misc]  # django-q2 has no types
    """Keep one queue's workers running until the lifeline is cut."""

    def __init__(
        self,
        broker: NotifyBroker,
        processes: int,
        lifeline: Lifeline,
        pulse: Pulse,
        paused: Callable[[], bool],
    ) -> None:
        super().__init__(
            stop_event=_StopEvent(lifeline, pulse),
            start_event=Event(),
            cluster_id=uuid.uuid4(),
            broker=broker,
            timeout=_NO_TIMEOUT,
            start=False,
        )
        self.pool_size = processes
        self._pulse, self._leash, self._paused = pulse, Lifeline(), paused
        self.event_out = Event()
        self.task_queue = _Claims(broker, pulse, self._leash, paused)
        self.result_queue = _Results(broker)

    def spawn_pusher(self) -> _Absent:
        return _Absent(self.event_out)

    def spawn_monitor(self) -> _Absent:
        return _Absent(self.event_out)

    def spawn_worker(self) -> None:
        taken = {process.place for process in self.pool}
        place = next(free for free in range(1, self.pool_size + 1) if free not in taken)
        self._pulse.beat(place)
        claims = _Claims(self.broker, self._pulse, self._leash, self._paused, place)
        process = self.spawn_process(worker, claims, _Results(self.broker), _Timer(), _NO_TIMEOUT)
        process.place = place

    def reincarnate(self, process: Any) -> None:
        if int(process.timer.value) != -2 and process.exitcode != 0:  # -2: it left to be renewed
            logger.warning(
                "Queue %s: worker process %s died (exit code %s); another takes its place.",
                self.broker.list_key,
                process.pid,
                process.exitcode,
            )
        super().reincarnate(process)


def run_cluster(
    queue: str, processes: int, lifeline: Lifeline, pulse: Pulse, paused: Callable[[], bool]
) -> None:
    """Run a queue's cluster in this process, a child made for it, until the lifeline is cut.

    While `paused` says so, its idle processes claim no row.
    """
    logging.getLogger("django-q").disabled = True  # what matters of it is logged here
    lifeline.adopt()
    Conf.CLUSTER_NAME = queue  # the scheduler's: Q_CLUSTER_NAME is read only at import
    sentinel = ClaimingSentinel(NotifyBroker(queue), processes, lifeline, pulse, paused)
    lifeline.let_go_on_signals()
    sentinel.start()
