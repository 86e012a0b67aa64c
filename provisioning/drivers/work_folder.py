"""Hold a resource's work folder for one run, and end what a dead worker left running in it."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from provisioning.drivers.base import DriverError, Run, StoppedError

RECORD = "tool.json"
"""Names the tool that runs in a folder: its process id and start time."""

_PAUSE_SECONDS = 0.05


@contextmanager
def occupied(run: Run, *, patience: float = 60.0) -> Iterator[Path]:
    """Hold the run's work folder, with nothing of an earlier attempt running in it any more.

    A worker that lost its lease may still be busy in the same folder; it is waited for. The kernel
    gives the folder free when its holder dies. Raises DriverError when patience (seconds) is over.
    """
    folder = run.work_folder
    end = time.monotonic() + patience
    while True:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            wait_for_lock(descriptor, run, end - time.monotonic(), what=str(folder))
            if _is_still(folder, descriptor):
                end_previous(folder, run)
                yield folder
                return
        finally:
            os.close(descriptor)


def wait_for_lock(descriptor: int, run: Run, patience: float, *, what: str) -> None:
    """Lock an open file or folder; raise StoppedError or, when patience is over, DriverError."""
    end = time.monotonic() + patience
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        reason = run.should_stop()
        if reason is not None:
            raise StoppedError(f"The run was stopped ({reason}) while it waited.", reason)
        if time.monotonic() >= end:
            message = f"Another worker of this machine does not let go of {what}."
            raise DriverError(message, permanent=False)
        time.sleep(_PAUSE_SECONDS)


def _is_still(folder: Path, descriptor: int) -> bool:
    """Say whether the folder is still the one that was opened, not one made after its removal."""
    try:
        return os.fstat(descriptor).st_ino == folder.stat().st_ino
    except FileNotFoundError:
        return False


def end_previous(folder: Path, run: Run, *, patience: float = 25.0) -> None:
    """End what a dead worker left running in this folder: its tool, then the tool's children.

    The tool has been interrupted already, by its parent's death; when patience (seconds) is over, it
    is killed.
    """
    record = folder / RECORD
    try:
        known = json.loads(record.read_text())
        leader, started = int(known["pid"]), float(known["started"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return
    with suppress(psutil.NoSuchProcess):
        tool = psutil.Process(leader)
        if tool.create_time() != started:  # the number is another process's now
            record.unlink()
            return
        run.log("Waiting for the tool of an earlier attempt to stop.\n", level="warning")
        if not _wait_until_dead([tool], patience):
            run.log("It did not stop: it is killed.\n", level="warning")
    left = list(_session(leader))
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _wait_until_dead(left, patience)
    record.unlink(missing_ok=True)


def _wait_until_dead(processes: Sequence[psutil.Process], patience: float) -> bool:
    """Wait until the processes run no more; one that nobody has reaped yet is dead as well."""
    end = time.monotonic() + patience
    while any(_runs(process) for process in processes):
        if time.monotonic() >= end:
            return False
        time.sleep(_PAUSE_SECONDS)
    return True


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def tool_runs_in(folder: Path) -> bool:
    """Say whether the tool that a run of this machine started in the folder still runs."""
    try:
        known = json.loads((folder / RECORD).read_text())
        return bool(psutil.Process(int(known["pid"])).create_time() == float(known["started"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError, psutil.Error):
        return False


def _session(leader: int) -> Iterator[psutil.Process]:
    """Yield the processes of a session; its number is not given anew while one of them lives."""
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(process.pid) == leader:
                yield process
