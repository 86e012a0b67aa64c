"""Run one tool for a `Run` so that neither it nor the worker can be left in the dark.

The tool runs under `supervisor.py`, a process of its own that outlives the worker, and writes to
files, never to pipes: a pipe would kill it when the worker dies. All that is known of a tool stands in
files of its folder, so another worker of the same machine can follow a tool that a dead one started.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import psutil

from provisioning.drivers import sandbox, supervisor
from provisioning.drivers.base import DriverError, LeaseLostError, Run
from provisioning.drivers.folders import (
    control_folder,
    credentials_folder,
    lease_file,
    make_control_folder,
    read_left,
    said_folder,
)

TICK_SECONDS = 0.02
LONGEST_LINE = 16 * 1024 * 1024
AT_ONCE = 64 * 1024
"""How many bytes of output are read before it is looked whether the tool must stop."""
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

_ESCAPE_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)|[@-Z\\-_])"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Outcome:
    """Say how the tool ended: its exit code and, if it was told to stop, why."""

    exit_code: int
    stopped: str | None


class ToolLostError(DriverError):
    """Say that a tool was interrupted for want of a worker or killed with its supervisor."""

    def __init__(self, message: str) -> None:
        super().__init__(message, permanent=False)


def printable(text: str) -> str:
    """Return the text without escape sequences and control characters other than tab and newline.

    Those that turn the direction of writing go too, and halves of surrogate pairs.
    """
    return _CONTROL.sub("", _ESCAPE_SEQUENCE.sub("", text.replace("\r\n", "\n")))


def supervise(
    arguments: Sequence[str],
    *,
    run: Run,
    folder: Path,
    environment: Mapping[str, str],
    on_line: Callable[[str, str], None] | None = None,
    on_tick: Callable[[], None] | None = None,
    grace: Mapping[str, float] | None = None,
    readable: Sequence[Path] = (),
    writable: Sequence[Path] = (),
) -> Outcome:
    """Start a tool in the folder and follow it until it has ended; see `Tool.start` and `follow`."""
    tool = Tool.start(
        arguments,
        run=run,
        folder=folder,
        environment=environment,
        readable=readable,
        writable=writable,
    )
    return follow(tool, run=run, on_line=on_line, on_tick=on_tick, grace=grace)


class Tool:
    """Know one run of a tool by the files of its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = control_folder(folder)
        self.said = said_folder(folder)
        self._supervisor: subprocess.Popen[bytes] | None = None

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
        words = sandbox.find_sandbox(run.work_folder).wrap(
            [
                sandbox.python(), "-I", "-S", supervisor.__file__,
                str(folder), str(tool.files), str(lease), str(lock), *arguments,
            ],
            folder=folder,
            readable=[
                *readable, Path(supervisor.__file__), tool.files,
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
        """Find the running processes that have the tool's mark."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == str(self.folder) and _runs(process):
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


def follow(
    tool: Tool,
    *,
    run: Run,
    on_line: Callable[[str, str], None] | None = None,
    on_tick: Callable[[], None] | None = None,
    grace: Mapping[str, float] | None = None,
    forget: bool = True,
) -> Outcome:
    """Hear a tool from the beginning of its output to its end, and leave no process of it behind.

    `on_line(stream, line)` gets each line of output (default: `run.log`); `on_tick` is called every
    20 ms and once after the end. When the run must stop, the supervisor is ordered to tell the tool,
    with `grace` seconds (by reason) before it is killed. Raises ToolLostError if the tool could not do
    its work for want of those two, and whatever a callback raised, once the tool has ended; a run that
    has lost its lease leaves the tool to its supervisor and to whoever has the step now, and raises
    LeaseLostError at once. Without `forget`, the next attempt can hear the ended tool once more, for as
    long as its folder is there: that is for a tool whose output is all that is left of its work.
    """
    following = _Following(
        tool,
        run,
        on_line or (lambda stream, line: run.log(printable(line) + "\n", stream=stream)),
        on_tick or (lambda: None),
        {**GRACE_SECONDS, **(grace or {})},
        forget,
    )
    try:
        return following.to_the_end()
    finally:
        following.close()


class _Following:
    def __init__(
        self,
        tool: Tool,
        run: Run,
        on_line: Callable[[str, str], None],
        on_tick: Callable[[], None],
        grace: Mapping[str, float],
        forget: bool,
    ) -> None:
        self.tool, self.run = tool, run
        self.on_line, self.on_tick, self.grace = on_line, on_tick, grace
        self.forget = forget
        # One that another attempt started has no more time for being followed by this one.
        deadlines = [each for each in (run.deadline, tool.deadline()) if each is not None]
        self.deadline = min(deadlines, default=None)
        self.told = False
        self.failure: Exception | None = None
        self.tails = {stream: Tail(tool.files / f"{stream}.log") for stream in STREAMS}

    def to_the_end(self) -> Outcome:
        while not self.tool.wait(
            0 if any(tail.more for tail in self.tails.values()) else TICK_SECONDS
        ):
            self._look()
            self._stop_if_told()
        self.tool.end(self.run)
        self._look(last=True)
        if self.forget:
            self.tool.forget()
        if self.failure is not None:
            raise self.failure
        outcome = self.tool.outcome()
        if outcome is None:
            raise ToolLostError("The tool's supervisor was killed.")
        if outcome.exit_code and outcome.stopped == supervisor.LEASE_LOST:
            raise ToolLostError("The tool was interrupted when its worker was lost.")
        return outcome

    def close(self) -> None:
        for tail in self.tails.values():
            tail.close()

    def _look(self, *, last: bool = False) -> None:
        """Pass on output and tick; after a failure the tool is stopped and heard out in silence."""
        try:
            for stream, tail in self.tails.items():
                for line in tail.lines(last=last):
                    if self.failure is None:
                        self.on_line(stream, line)
            self.on_tick()
        except LeaseLostError:
            self.tool.order("stop", supervisor.LEASE_LOST, self.grace[supervisor.LEASE_LOST])
            raise
        except Exception as error:
            self.failure = self.failure or error

    def _stop_if_told(self) -> None:
        reason = self.run.should_stop()
        if reason is None and self.deadline is not None:
            reason = supervisor.TIMED_OUT if time.monotonic() >= self.deadline else None
        if reason == supervisor.LEASE_LOST:
            raise LeaseLostError("The lease was lost while the tool ran.")
        if reason is None and self.failure is not None:
            reason = "cancelled"
        if reason is not None and not self.told:
            self.told = True
            self.tool.order("stop", reason, self.grace[reason])


class Tail:
    """Read a growing file of output line by line.

    `more` tells that there was more to read than is read at once.
    """

    def __init__(self, path: Path) -> None:
        self._source: BinaryIO = path.open("rb")
        self._rest = b""
        self._dropped = 0
        self.more = False

    def lines(self, *, last: bool = False) -> Iterator[str]:
        """Yield complete lines since the last call, of so much output that one can look up from it.

        With `last`, all that are left, and an unfinished one too.
        """
        self.more = True
        while self.more:
            chunk = self._source.read(AT_ONCE)
            self.more = len(chunk) == AT_ONCE
            *complete, self._rest = (self._rest + chunk).split(b"\n")
            for line in complete:
                yield self._text(line)
            if len(self._rest) > LONGEST_LINE:
                self._dropped += len(self._rest)
                self._rest = b""
            if not last:
                return
        if self._rest or self._dropped:
            yield self._text(self._rest)
            self._rest = b""

    def _text(self, line: bytes) -> str:
        text = line.decode("utf-8", "replace")
        if self._dropped:
            text = f"[a line too long for the log: {self._dropped + len(line)} bytes left out]"
            self._dropped = 0
        return text

    def close(self) -> None:
        """Close the file."""
        self._source.close()


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
