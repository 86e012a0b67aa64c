from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from django.db import OperationalError, connection

from provisioning.queue import cluster, watchdog
from provisioning.queue.chores import Chore, chores
from provisioning.queue.cluster import Pulse
from provisioning.queue.lifeline import Lifeline, draining
from provisioning.queue.watchdog import Part, Watchdog, WorkerFailedError
from tests.provisioning.queue.conftest import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace without pauses, and hear within a second that a process is quiet."""
    monkeypatch.setattr(watchdog, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(watchdog, "QUIET_SECONDS", 1.0)
    monkeypatch.setattr(watchdog, "_ROUND_SECONDS", 0.02)


def noting(file: Path, then: Callable[[Lifeline, Pulse], None]) -> Part:
    """Return a part that writes its pid into a file and then does something."""

    def run(lifeline: Lifeline, pulse: Pulse) -> None:
        lifeline.adopt()
        with file.open("a") as notes:
            notes.write(f"{os.getpid()}\n")
        then(lifeline, pulse)

    return Part("A part", run)


def live(lifeline: Lifeline, pulse: Pulse) -> None:
    while not lifeline.wait(0.05):
        pulse.beat(0)


def pids(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def watched(part: Part, until: Callable[[], bool]) -> bool:
    """Run a watchdog over a part until something has happened; return what it answers."""
    dog = Watchdog([part])

    def stop() -> None:
        try:
            wait_for("what the test waits for", until)
        finally:
            dog.stop()

    stopper = threading.Thread(target=stop)
    stopper.start()
    try:
        return dog.run()
    finally:
        stopper.join()


def test_a_part_that_is_well_is_left_alone(tmp_path: Path) -> None:
    began = time.monotonic()
    assert watched(noting(tmp_path / "pids", live), lambda: time.monotonic() - began > 1.5)
    assert len(pids(tmp_path / "pids")) == 1
    assert not psutil.pid_exists(pids(tmp_path / "pids")[0])


def test_a_part_that_dies_is_replaced(tmp_path: Path) -> None:
    def die_first(lifeline: Lifeline, pulse: Pulse) -> None:
        if len(pids(tmp_path / "pids")) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        live(lifeline, pulse)

    part = noting(tmp_path / "pids", die_first)
    assert watched(part, lambda: len(pids(tmp_path / "pids")) == 2)


def test_a_part_that_is_not_heard_of_is_killed_and_replaced(tmp_path: Path) -> None:
    def hang_first(lifeline: Lifeline, pulse: Pulse) -> None:
        if len(pids(tmp_path / "pids")) == 1:
            time.sleep(60)
        live(lifeline, pulse)

    part = noting(tmp_path / "pids", hang_first)
    assert watched(part, lambda: len(pids(tmp_path / "pids")) == 2)
    assert not any(map(psutil.pid_exists, pids(tmp_path / "pids")))


def test_a_busy_part_is_not_taken_for_a_hung_one(tmp_path: Path) -> None:
    def work(lifeline: Lifeline, pulse: Pulse) -> None:
        pulse.busy(0)
        time.sleep(2)
        live(lifeline, pulse)

    began = time.monotonic()
    assert watched(noting(tmp_path / "pids", work), lambda: time.monotonic() - began > 1.8)
    assert len(pids(tmp_path / "pids")) == 1


def test_a_part_that_never_lasts_ends_the_worker_with_an_error(tmp_path: Path) -> None:
    def die(_lifeline: Lifeline, _pulse: Pulse) -> None:
        os._exit(3)

    part = noting(tmp_path / "pids", die)
    with pytest.raises(WorkerFailedError, match="5 replacements did not last"):
        Watchdog([part]).run()
    assert len(pids(tmp_path / "pids")) == 6
    assert not any(map(psutil.pid_exists, pids(tmp_path / "pids")))


def test_a_part_that_does_not_end_when_told_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "GRACE_SECONDS", 0.3)

    def ignore(_lifeline: Lifeline, pulse: Pulse) -> None:
        while True:
            pulse.beat(0)
            time.sleep(0.05)

    part = noting(tmp_path / "pids", ignore)
    assert not watched(part, lambda: len(pids(tmp_path / "pids")) == 1)
    wait_for("the process is gone", lambda: not psutil.pid_exists(pids(tmp_path / "pids")[0]))


def test_chores_are_done_again_and_again_also_when_they_fail(tmp_path: Path) -> None:
    done = tmp_path / "done"

    def chore() -> None:
        with done.open("a") as notes:
            notes.write("1\n")
        raise RuntimeError("a failing chore")

    part = chores(Chore(0.05, chore), after_outage=lambda _seconds: None)
    assert watched(part, lambda: len(pids(done)) >= 3)


def test_an_outage_of_the_database_is_told_once_when_it_is_over(tmp_path: Path) -> None:
    done, told = tmp_path / "done", tmp_path / "told"

    def chore() -> None:
        with done.open("a") as notes:
            notes.write("1\n")
        if 1 < len(pids(done)) < 4:
            raise OperationalError("no connection")

    def tell(seconds: float) -> None:
        with told.open("a") as notes:
            notes.write(f"{len(pids(done))} {0 < seconds < 10}\n")

    assert watched(chores(Chore(0.05, chore), after_outage=tell), lambda: len(pids(done)) >= 6)
    assert told.read_text() == "4 True\n"


def test_a_connection_that_was_broken_between_two_chores_is_an_outage(tmp_path: Path) -> None:
    done, told = tmp_path / "done", tmp_path / "told"

    def chore() -> None:
        with done.open("a") as notes:
            notes.write("1\n")
        connection.cursor().execute("SELECT 1")
        if len(pids(done)) == 2:
            connection.connection.close()

    part = chores(Chore(0.05, chore), after_outage=lambda _seconds: told.open("a").write("told\n"))
    assert watched(part, lambda: len(pids(done)) >= 5)
    assert told.read_text() == "told\n"


def test_nobody_drains_outside_of_a_worker() -> None:
    assert draining() is False


def test_another_django_q2_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "version", lambda _name: "1.12.0")
    with pytest.raises(cluster.UnsupportedQueueError, match=r"django-q2 1\.12\.0 is installed"):
        cluster.check_version()
