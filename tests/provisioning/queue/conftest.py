from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from django.conf import settings

from provisioning.queue.doorbell import ring
from provisioning.queue.schedules import REGULAR
from tests.provisioning.queue import tasks

TASKS = "tests.provisioning.queue.tasks"
STARTS_WITHIN = 20.0
GOES_ON_WITHIN = 30.0


def wait_for(what: str, happened: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until something has happened; fail, saying what did not, after so many seconds."""
    give_up = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < give_up, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def title(process: psutil.Process) -> str:
    """Return the process's title, or "" if it is no more."""
    try:
        return " ".join(process.cmdline()).strip()
    except psutil.Error:
        return ""


class RealWorker:
    """A running `manage.py worker` and the file in which its tasks write."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.ledger = folder / "ledger"
        self.output = folder / "output"
        self._environment = environment | {tasks.LEDGER: str(self.ledger)}
        self._seen: dict[int, psutil.Process] = {}

    def start(self, *arguments: str, processes: int = 2) -> None:
        """Start the command and wait until its processes are there."""
        command = [sys.executable, str(settings.BASE_DIR / "manage.py"), "worker", *arguments]
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [*command, "--processes", str(processes)],
                env=self._environment,
                stdout=output,
                stderr=output,
            )
        self.main = psutil.Process(self.process.pid)
        queues = arguments[1].count(",") + 1 if "--queues" in arguments else 1
        wait_for(
            "all processes started",
            lambda: self.titled("idle", "processing") == processes * queues,
            STARTS_WITHIN,
        )

    def titled(self, *words: str) -> int:
        """Return how many of the worker processes have one of these words in their title."""
        titles = [title(process) for process in self.workers()]
        return sum(any(word in each for word in words) for each in titles)

    def parts(self, word: str) -> list[psutil.Process]:
        """Return the direct children whose title has this word: "queue" or "chores".

        The cluster of scheduled work is left out.
        """
        children = [(child, title(child)) for child in self.main.children()]
        regular = f"queue {REGULAR}"
        return [child for child, name in children if word in name and not name.endswith(regular)]

    def sentinel(self) -> psutil.Process:
        """Return the process that keeps the worker processes."""
        return self.parts("queue")[0]

    def workers(self) -> list[psutil.Process]:
        """Return the processes that run tasks."""
        found = []
        for child in self.parts("queue"):
            with suppress(psutil.NoSuchProcess):  # it ended while it was looked at
                found += [
                    worker for worker in child.children() if worker.status() != psutil.STATUS_ZOMBIE
                ]
        self._seen |= {process.pid: process for process in self.everything()}
        return found

    def everything(self) -> list[psutil.Process]:
        """Return all processes of the command, itself first."""
        return [self.main, *self.main.children(recursive=True)]

    def left_over(self) -> list[psutil.Process]:
        """Return those of the processes seen so far that still run."""
        return [
            process
            for process in self._seen.values()
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        ]

    def events(self) -> list[str]:
        """Return what the tasks have written: `event queue pid` each."""
        return self.ledger.read_text().splitlines() if self.ledger.exists() else []

    def count(self, event: str) -> int:
        """Return how often the tasks have written this event."""
        return sum(line.startswith(f"{event} ") for line in self.events())

    def release(self) -> None:
        """Let the `hold` tasks end."""
        self.ledger.with_name("ledger.release").touch()

    def runs_a_task(self, seconds: float = GOES_ON_WITHIN, queue: str = "default") -> None:
        """Ring the queue and wait until a task has run; fail if none does."""
        before = self.count("ran")
        ring(queue, task=f"{TASKS}.note")
        wait_for(f"a task ran; {self.said()}", lambda: self.count("ran") > before, seconds)

    def said(self) -> str:
        """Return what the command has printed."""
        return self.output.read_text()

    def end(self) -> None:
        """End whatever is left of the command."""
        if self.process.poll() is None:
            self._seen |= {process.pid: process for process in self.everything()}
        for process in self.left_over():
            process.kill()
        self.process.wait(10)


@pytest.fixture
def worker(child_environment: dict[str, str], tmp_path: Path) -> Iterator[RealWorker]:
    """Return a worker command that is not started yet; what it leaves behind is killed."""
    real = RealWorker(child_environment, tmp_path)
    yield real
    if hasattr(real, "process"):
        real.end()
