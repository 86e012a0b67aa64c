"""Hold a resource's work folder for one run."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from provisioning.drivers.base import DriverError, LeaseLostError, Run, StoppedError
from provisioning.drivers.folders import control_folder, make_control_folder, remove_folder
from provisioning.drivers.processes import identity, is_alive
from provisioning.drivers.supervisor import LEASE_LOST
from provisioning.drivers.tool import Tool

_PAUSE_SECONDS = 0.05


@contextmanager
def occupied(run: Run, *, patience: float = 60.0, keep_tool: bool = False) -> Iterator[Path]:
    """Hold the run's work folder, with nothing of an earlier attempt running in it any more.

    With `keep_tool`, a tool that the attempt before this one started is left for this one to follow.
    The kernel gives the folder free when its holder dies; a worker of this machine that holds it
    though it has lost the step is killed after a second, since it may be stopped for ever and can
    store nothing any more. Raises DriverError when patience (seconds) is over, and LeaseLostError for
    a run that has lost its lease: what is there is another attempt's.
    """
    folder = run.work_folder
    end = time.monotonic() + patience
    while True:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_control_folder(folder)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _take(folder, descriptor, run, end - time.monotonic())
            if _is_still(folder, descriptor):
                if run.should_stop() == LEASE_LOST:
                    raise LeaseLostError(f"The lease was lost before {folder} was taken.")
                left = Tool.left_in(folder)
                if left is not None and not (keep_tool and left.was_started_before(run)):
                    left.end(run)
                    left.forget()
                yield folder
                return
        finally:
            os.close(descriptor)


def remove(run: Run) -> None:
    """Remove the run's work folder, unless it is another attempt's by now: raises LeaseLostError."""
    if run.work_folder.exists():
        with occupied(run) as folder:
            remove_folder(folder)


def _take(folder: Path, descriptor: int, run: Run, patience: float) -> None:
    first = min(patience, 1.0)
    try:
        wait_for_lock(descriptor, run, first, what=str(folder))
    except StoppedError:
        raise
    except DriverError:
        _kill_holder(folder, run)
        wait_for_lock(descriptor, run, patience - first, what=str(folder))
    with suppress(FileNotFoundError):  # the folder was removed meanwhile: it is made anew
        (control_folder(folder) / "holder").write_text(identity())


def holder_of(folder: Path) -> psutil.Process | None:
    """Return the living process of this machine that took a work folder last, if there is one."""
    try:
        named = (control_folder(folder) / "holder").read_text()
        return psutil.Process(int(named.partition(" ")[0])) if is_alive(named) else None
    except (FileNotFoundError, ValueError, psutil.Error):
        return None


def _kill_holder(folder: Path, run: Run) -> None:
    holder = holder_of(folder)
    if holder is not None and holder.pid != os.getpid():
        run.log("A worker that has lost this step does not let go of it: it is killed.\n")
        with suppress(psutil.Error):
            holder.kill()


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
