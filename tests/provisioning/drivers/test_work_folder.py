from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from provisioning.drivers.base import DriverError, LeaseLostError, StoppedError
from provisioning.drivers.folders import control_folder, make_control_folder
from provisioning.drivers.tool import Tool
from provisioning.drivers.work_folder import holder_of, occupied, remove
from tests.provisioning.drivers.runs import MemoryRun

ROOT = Path(__file__).parents[3]


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
        shutil.rmtree(folder)
    thread.join()
    assert held.is_set()
    assert (run.work_folder / "mine").exists()


def test_a_told_run_waits_no_longer(tmp_path: Path) -> None:
    run = MemoryRun(tmp_path / "work", told="cancelled")
    with occupied(MemoryRun(tmp_path / "work")), pytest.raises(StoppedError), occupied(run):
        pass


def _start(run: MemoryRun, script: str) -> Tool:
    run.work_folder.mkdir(exist_ok=True)
    tool = Tool.start(
        ["/bin/sh", "-c", script], run=run, folder=run.work_folder, environment=run.environment
    )
    _wait_for(tool.said / "tool")
    return tool


def _is_over(tool: Tool) -> bool:
    return _gone(int((tool.said / "tool").read_text()))


def test_the_tool_of_another_step_is_ended_before_anything_starts(tmp_path: Path) -> None:
    tool = _start(MemoryRun(tmp_path), "sleep 60")
    run = MemoryRun(tmp_path, step=2, attempt=2)
    with occupied(run, keep_tool=True):
        assert _is_over(tool)
        assert Tool.left_in(tmp_path) is None
    assert run.text() == "Stopping the tool of an earlier attempt.\n"


def test_the_tool_of_the_attempt_before_is_kept_for_who_can_follow_it(tmp_path: Path) -> None:
    tool = _start(MemoryRun(tmp_path), "sleep 60")
    with occupied(MemoryRun(tmp_path, attempt=2), keep_tool=True):
        assert tool.runs()
    with occupied(MemoryRun(tmp_path, attempt=2)):
        assert _is_over(tool)


def test_a_run_removes_its_folder(tmp_path: Path) -> None:
    run = MemoryRun(tmp_path / "work")
    with occupied(run):
        pass
    remove(run)
    remove(run)
    assert not run.work_folder.exists()


def test_a_run_that_has_lost_its_lease_leaves_the_folder_and_tool_of_the_next_one(
    tmp_path: Path,
) -> None:
    tool = _start(MemoryRun(tmp_path / "work", attempt=2), "sleep 60")
    frozen = MemoryRun(tmp_path / "work", told="lease lost")
    with pytest.raises(LeaseLostError):
        remove(frozen)
    with occupied(MemoryRun(tmp_path / "work", attempt=3), keep_tool=True):
        with pytest.raises(StoppedError, match="lease lost"):
            remove(frozen)
        assert tool.runs()
    tool.end(MemoryRun(tmp_path / "work"), patience=0)


def test_a_holder_that_is_stopped_for_ever_is_killed(tmp_path: Path) -> None:
    program = textwrap.dedent(
        f"""
        import os, signal
        from pathlib import Path
        from provisioning.drivers.work_folder import occupied
        from tests.provisioning.drivers.runs import MemoryRun
        with occupied(MemoryRun(Path({str(tmp_path)!r}))):
            Path({str(tmp_path)!r}, "held").touch()
            os.kill(os.getpid(), signal.SIGSTOP)
        """
    )
    zombie = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    _wait_for(tmp_path / "held")
    run = MemoryRun(tmp_path, attempt=2)
    with occupied(run, patience=10):
        assert zombie.wait(5) == -signal.SIGKILL
    assert "does not let go of it: it is killed" in run.text()


def test_a_process_that_only_has_the_holders_number_is_left_alone(tmp_path: Path) -> None:
    other = subprocess.Popen(["/bin/sleep", "60"])
    make_control_folder(tmp_path)
    (control_folder(tmp_path) / "holder").write_text(f"{other.pid} 1@0")
    assert holder_of(tmp_path) is None
    other.kill()
    other.wait()
