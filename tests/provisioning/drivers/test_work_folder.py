from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path

import psutil
import pytest

from provisioning.drivers.base import DriverError, StoppedError
from provisioning.drivers.work_folder import RECORD, end_previous, occupied
from tests.provisioning.drivers.runs import MemoryRun


def _wait_for(file: Path, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not file.exists() and time.monotonic() < end:
        time.sleep(0.01)


def _gone(pid: int, seconds: float = 5) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def run(tmp_path: Path) -> MemoryRun:
    return MemoryRun(tmp_path)


def test_a_folder_is_held_by_one_run_at_a_time(tmp_path: Path) -> None:
    first, second = MemoryRun(tmp_path / "work"), MemoryRun(tmp_path / "work")
    with (
        occupied(first),
        pytest.raises(DriverError, match="does not let go of") as failed,
        occupied(second, patience=0.1),
    ):
        pass
    assert failed.value.permanent is False
    with occupied(second, patience=0.1) as folder:
        assert folder.stat().st_mode & 0o777 == 0o700


def test_who_waited_gets_a_new_folder_when_the_old_one_was_removed(tmp_path: Path) -> None:
    run = MemoryRun(tmp_path / "work")
    held = threading.Event()

    def wait() -> None:
        with occupied(run) as folder:
            (folder / "mine").touch()
            held.set()

    thread = threading.Thread(target=wait)
    with occupied(run) as folder:
        thread.start()
        time.sleep(0.1)
        folder.rmdir()
    thread.join()
    assert held.is_set()
    assert (run.work_folder / "mine").exists()


def test_a_told_run_waits_no_longer(tmp_path: Path) -> None:
    run = MemoryRun(tmp_path / "work", told="cancelled")
    with occupied(MemoryRun(tmp_path / "work")), pytest.raises(StoppedError), occupied(run):
        pass


def test_the_tool_of_a_dead_worker_is_ended_before_another_starts(run: MemoryRun) -> None:
    left = subprocess.Popen(
        ["/bin/sh", "-c", "trap '' INT; sleep 60"], start_new_session=True, cwd=run.work_folder
    )
    started = psutil.Process(left.pid).create_time()
    (run.work_folder / RECORD).write_text(f'{{"pid": {left.pid}, "started": {started}}}')
    end_previous(run.work_folder, run, patience=0.2)
    assert _gone(left.pid)
    left.wait()
    assert "It did not stop: it is killed" in run.text()


def test_the_children_of_a_dead_tool_are_ended_too(run: MemoryRun) -> None:
    child = run.work_folder / "child"
    tool = subprocess.Popen(
        ["/bin/sh", "-c", f"sleep 60 & echo $! > {child}.new; mv {child}.new {child}; sleep 60"],
        start_new_session=True,
    )
    _wait_for(child)
    started = psutil.Process(tool.pid).create_time()
    (run.work_folder / RECORD).write_text(f'{{"pid": {tool.pid}, "started": {started}}}')
    tool.kill()
    tool.wait()
    end_previous(run.work_folder, run)
    assert _gone(int(child.read_text()))
    assert not (run.work_folder / RECORD).exists()


def test_a_dead_tool_that_nobody_has_reaped_is_not_waited_for(run: MemoryRun) -> None:
    tool = subprocess.Popen(["/bin/sleep", "60"], start_new_session=True)
    started = psutil.Process(tool.pid).create_time()
    (run.work_folder / RECORD).write_text(f'{{"pid": {tool.pid}, "started": {started}}}')
    tool.kill()
    begin = time.monotonic()
    end_previous(run.work_folder, run, patience=20)
    assert time.monotonic() - begin < 5
    tool.wait()


def test_a_process_that_only_has_the_same_number_is_left_alone(run: MemoryRun) -> None:
    other = subprocess.Popen(["/bin/sleep", "60"], start_new_session=True)
    (run.work_folder / "tool.json").write_text(f'{{"pid": {other.pid}, "started": 1.0}}')
    end_previous(run.work_folder, run)
    assert other.poll() is None
    other.kill()
    other.wait()
