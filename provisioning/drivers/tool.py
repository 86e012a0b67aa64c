"""Know one run of a tool by files beside its folder: start it, follow it, end it.

The tool runs under `supervisor.py`, a process of its own that outlives the worker, and writes to
files, never to pipes: a pipe would kill it when the worker dies. All that is known of it stands in
files, so another worker of the same machine can follow a tool that a dead one started.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import py_compile
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from provisioning.drivers import sandbox, supervisor
from provisioning.drivers.base import DriverError, Run
from provisioning.drivers.folders import (
    control_folder,
    credentials_folder,
    lease_file,
    make_control_folder,
    read_left,
    said_folder,
)

TICK_SECONDS = 0.02
GRACE_SECONDS: dict[str, float] = {
    "cancelled": 600.0,
    supervisor.TIMED_OUT: 600.0,
    supervisor.LEASE_LOST: supervisor.LEASE_GRACE_SECONDS,
}
STREAMS = ("stdout", "stderr")
MOST_SAID = 4096
RESERVED_BYTES = 4 * 1024 * 1024
_KEEP_SIZE = 1  # linux/falloc.h
MARK = "CONDUCTOR_RUN"
"""The variable by which the processes of a tool are known; it holds the tool's folder."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Say how the tool ended: its exit code and, if it was told to stop, why."""

    exit_code: int
    stopped: str | None


class Tool:
    """Know one run of a tool by the files of its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = control_folder(folder)
        self.said = said_folder(folder)
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._user: int | None = None

    @classmethod
    def start(
        cls,
        arguments: Sequence[str],
        *,
        run: Run,
        folder: Path,
        environment: Mapping[str, str],
        stdin: Path | None = None,
        readable: Sequence[Path] = (),
        writable: Sequence[Path] = (),
        followable: bool = True,
    ) -> Tool:
        """Start a tool under a supervisor, both in a sandbox; `follow` reads what it says.

        `readable` and `writable` name what the tool needs to see besides the folder. A tool whose end
        alone does not tell that the work is done is not `followable`: the next attempt ends it.
        """
        tool = cls(folder)
        make_control_folder(folder)
        shutil.rmtree(tool.said, ignore_errors=True)
        tool.said.mkdir(mode=0o700)
        (tool.files / "orders").unlink(missing_ok=True)
        if run.deadline is not None:
            tool.order("deadline", str(run.deadline), GRACE_SECONDS[supervisor.TIMED_OUT])
        lock = tool._lock_file()
        fcntl.flock(lock, fcntl.LOCK_EX)
        sinks = [_sink(tool.files / f"{stream}.log") for stream in STREAMS]
        (tool.files / "owner").write_text(
            _owner(run.step, run.attempt) if followable else "this attempt alone"
        )
        lease, credentials = lease_file(run.work_folder), credentials_folder(run.work_folder)
        program = _supervisor_in(run.work_folder.parent)
        words = sandbox.find_sandbox(run.work_folder).wrap(
            [
                sandbox.python(), "-I", "-S", str(program),
                str(folder), str(tool.files), str(lease), str(lock), *arguments,
            ],
            folder=folder,
            readable=[
                *readable, program, tool.files,
                *([lease] if lease.exists() else []),
            ],
            writable=[tool.said, *([credentials] if credentials.exists() else []), *writable],
        )  # fmt: skip
        try:
            with open(stdin or os.devnull, "rb") as source:
                tool._supervisor = subprocess.Popen(
                    words,
                    cwd=folder,
                    env={**environment, MARK: str(folder)},
                    stdin=source,
                    stdout=sinks[0],
                    stderr=sinks[1],
                    pass_fds=[lock],
                    start_new_session=True,
                )
        except OSError as error:
            message = f"{arguments[0]} could not be started: {error.strerror}."
            raise DriverError(message, permanent=True) from error
        finally:
            for descriptor in (lock, *sinks):
                os.close(descriptor)
        return tool

    @classmethod
    def left_in(cls, folder: Path) -> Tool | None:
        """Return the tool that was started last in a folder and not heard to its end, if any."""
        return cls(folder) if (control_folder(folder) / "owner").exists() else None

    def was_started_before(self, run: Run) -> bool:
        """Tell whether the attempt just before this one started, or followed, the tool."""
        owner = self.files / "owner"
        return owner.exists() and owner.read_text() == _owner(run.step, run.attempt - 1)

    def take_over(self, run: Run) -> None:
        """Make this run's attempt the one that follows the tool."""
        (self.files / "owner").write_text(_owner(run.step, run.attempt))

    def runs(self) -> bool:
        """Tell whether its supervisor lives; the tool and all it started end before that does."""
        if not self.files.is_dir():
            return False
        lock = self._lock_file()
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def wait(self, seconds: float) -> bool:
        """Wait so long at most; return whether the supervisor has ended."""
        process = self._supervisor
        if process is None or process.poll() is not None:
            # Another worker's, or in a sandbox whose outermost process was killed.
            if self.runs():
                time.sleep(seconds)
            return not self.runs()
        if not hasattr(os, "pidfd_open"):
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
            return process.returncode is not None and not self.runs()
        if process.returncode is None:
            descriptor = os.pidfd_open(process.pid)
            try:
                if not select.select([descriptor], [], [], seconds)[0]:
                    return False
            finally:
                os.close(descriptor)
            process.wait()
        return not self.runs()

    def order(self, word: str, what: str, grace: float) -> None:
        """Write what the supervisor obeys; `stop` comes after a `deadline` and in its place."""
        temporary = self.files / "orders.new"
        temporary.write_text(f"{word}\t{what}\t{grace}\n")
        temporary.chmod(0o644)  # the supervisor may be another user
        temporary.replace(self.files / "orders")

    def deadline(self) -> float | None:
        """Return when its supervisor tells it to stop, as whoever started it has ordered."""
        orders = self.files / "orders"
        word, _, what = (orders.read_text() if orders.exists() else "").partition("\t")
        return float(what.partition("\t")[0]) if word == "deadline" else None

    def outcome(self) -> Outcome | None:
        """Return how the tool ended, or None if it runs or nobody was there to see its end."""
        end = self._read("end")
        told = self._read("told").strip()
        return Outcome(int(end), told or None) if end.lstrip("-").isdigit() else None

    def end(self, run: Run, *, patience: float = supervisor.LEASE_GRACE_SECONDS) -> None:
        """Stop the tool if it still runs, and leave no process of it behind.

        It is told once, by its supervisor or by that one's death, and killed after `patience` seconds.
        """
        if self._read("end") and not self.runs():
            return
        self._user = sandbox.sole_user_of(self.folder, run.work_folder)
        if self.runs():
            run.log("Stopping the tool of an earlier attempt.\n", level="warning")
            self.order("stop", supervisor.LEASE_LOST, patience)
        until = time.monotonic() + patience
        while self.runs() or self._tool_itself():
            if time.monotonic() >= until:
                run.log("The tool did not stop: it is killed.\n", level="warning")
                break
            time.sleep(TICK_SECONDS)
        if not self._read("end"):
            self._kill_what_is_left()

    def forget(self) -> None:
        """Say that the tool has been heard to its end, so that no other attempt follows it."""
        (self.files / "owner").unlink(missing_ok=True)

    def _kill_what_is_left(self) -> None:
        while left := self._processes():
            for process in left:
                with suppress(psutil.Error):
                    process.kill()
            time.sleep(TICK_SECONDS)

    def _tool_itself(self) -> bool:
        """Tell whether the tool lives, if its supervisor did not see its end."""
        leader = self._read("tool")
        return not self._read("end") and any(
            _own_number(process) == leader for process in self._processes()
        )

    def _processes(self) -> list[psutil.Process]:
        """Find the running processes that have the tool's mark, or its user where nobody else has that."""
        user = self._user
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                is_its = process.uids().real == user or process.environ().get(MARK) == str(
                    self.folder
                )
                if is_its and _runs(process):
                    found.append(process)
        return found

    def _lock_file(self) -> int:
        return os.open(self.files / "lock", os.O_CREAT | os.O_RDWR, 0o600)

    def _read(self, name: str) -> str:
        """Return what the supervisor said; it is of no use what the tool says in its name."""
        try:
            return read_left(self.said / name, MOST_SAID).decode("utf-8", "replace")
        except (FileNotFoundError, DriverError):
            return ""


def _supervisor_in(folder: Path) -> Path:
    """Return the supervisor's program, compiled there once: each run of a tool starts the sooner."""
    program = folder / _compiled_name()
    if not program.exists():
        py_compile.compile(supervisor.__file__, cfile=str(program), doraise=True)
        program.chmod(0o644)
    return program


@cache
def _compiled_name() -> str:
    digest = hashlib.sha256(Path(supervisor.__file__).read_bytes()).hexdigest()[:12]
    return f".{sys.implementation.cache_tag}-{digest}-supervisor.pyc"


def _sink(path: Path) -> int:
    """Open a file for output; room in it is reserved, for what a tool says when the disk is full."""
    descriptor = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND, 0o600)
    if sys.platform == "linux":  # where the file system cannot, it says so, and nothing is lost
        size = ctypes.c_longlong(RESERVED_BYTES)
        ctypes.CDLL(None).fallocate(descriptor, _KEEP_SIZE, ctypes.c_longlong(0), size)
    return descriptor


def _owner(step: int, attempt: int) -> str:
    return f"step {step} attempt {attempt}"


def _own_number(process: psutil.Process) -> str:
    """Return a process's id in its own namespace, which a sandbox may have given it."""
    with suppress(OSError), open(f"/proc/{process.pid}/status") as file:
        for line in file:
            if line.startswith("NSpid:"):
                return line.split()[-1]
    return str(process.pid)


def _runs(process: psutil.Process) -> bool:
    """Tell whether a process runs; one that nobody has reaped yet is dead as well."""
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
