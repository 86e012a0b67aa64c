"""Run one tool for a `Run` so that neither it nor the worker can be left in the dark.

The tool writes to files, never to pipes: a pipe would kill it when the worker dies. It gets a session
of its own, and on Linux a parent-death signal, so that an orphan stops as gracefully as a cancelled
tool does. That signal belongs to the thread that started the tool; `supervise` starts it and stays in
the same thread until the tool has ended, so it may be called from any thread.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import psutil

from provisioning.drivers.base import DriverError, LeaseLostError, Run
from provisioning.drivers.work_folder import RECORD

TICK_SECONDS = 0.02
LONGEST_LINE = 16 * 1024 * 1024
GRACE_SECONDS: dict[str, float] = {"cancelled": 600.0, "timed out": 600.0, "lease lost": 25.0}
STREAMS = ("stdout", "stderr")

_ESCAPE_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Outcome:
    """Say how the tool ended: its exit code and, if it was told to stop, why."""

    exit_code: int
    stopped: str | None


def printable(text: str) -> str:
    """Return the text without escape sequences and control characters other than tab and newline."""
    return _CONTROL.sub("", _ESCAPE_SEQUENCE.sub("", text.replace("\r\n", "\n")))


def supervise(
    arguments: Sequence[str],
    *,
    run: Run,
    folder: Path,
    environment: Mapping[str, str],
    on_line: Callable[[str, str], None] | None = None,
    on_tick: Callable[[], None] | None = None,
    stdin: Path | None = None,
    grace: Mapping[str, float] | None = None,
) -> Outcome:
    """Run a tool in the folder until it has ended, and leave no process of it behind.

    `on_line(stream, line)` gets each line of output (default: `run.log`); `on_tick` is called every
    20 ms and once after the end. Told to stop, the tool gets one SIGINT, then `grace` seconds (by
    reason), then SIGKILL with its whole group. Raises DriverError if the tool cannot be started,
    and LeaseLostError or whatever a callback raised once the tool has ended.
    """
    supervision = _Supervision(
        run=run,
        on_line=on_line or (lambda stream, line: run.log(printable(line) + "\n", stream=stream)),
        on_tick=on_tick or (lambda: None),
        grace={**GRACE_SECONDS, **(grace or {})},
    )
    tails = [Tail(folder / f"{stream}.log") for stream in STREAMS]
    process = _start(arguments, folder, environment, tails, stdin)
    try:
        record = {"pid": process.pid, "started": psutil.Process(process.pid).create_time()}
        (folder / RECORD).write_text(json.dumps(record))
        return supervision.follow(process, tails)
    finally:
        _end_group(process)
        for tail in tails:
            tail.close()
        (folder / RECORD).unlink(missing_ok=True)


def _start(
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    tails: Sequence[Tail],
    stdin: Path | None,
) -> subprocess.Popen[bytes]:
    with open(stdin or os.devnull, "rb") as source, _interruptible():
        try:
            return subprocess.Popen(
                [*_stopped_with_parent(), *arguments],
                cwd=folder,
                env=dict(environment),
                stdin=source,
                stdout=tails[0].sink,
                stderr=tails[1].sink,
                start_new_session=True,
            )
        except OSError as error:
            message = f"{arguments[0]} could not be started: {error.strerror}."
            raise DriverError(message, permanent=True) from error


def _stopped_with_parent() -> list[str]:
    """Return the words that make the following tool get SIGINT when this thread's process dies.

    The shell ends at once if the parent died before the signal was set.
    """
    if sys.platform != "linux":
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise DriverError(
            "setpriv is not installed on this worker: install util-linux, so that a tool stops when "
            "its worker dies.",
            permanent=True,
        )
    check = 'test "$PPID" = "$0" || exit 125; exec "$@"'
    return [setpriv, "--pdeathsig", "INT", "--", "/bin/sh", "-c", check, str(os.getpid())]


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let a tool started inside hear SIGINT even if this process ignores it.

    An ignored signal stays ignored in a child, a handled one does not.
    """
    main = threading.current_thread() is threading.main_thread()
    ignored = [
        number
        for number in (signal.SIGINT, signal.SIGTERM)
        if main and signal.getsignal(number) is signal.SIG_IGN
    ]
    for number in ignored:
        signal.signal(number, lambda *_: None)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the tool's group; its leader is not reaped yet, so the number is its own."""
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Tail:
    """Read a growing file of output line by line."""

    def __init__(self, path: Path) -> None:
        flags = os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND
        self.sink = os.open(path, flags, 0o600)
        self._source: BinaryIO = path.open("rb")
        self._rest = b""
        self._dropped = 0

    def lines(self, *, last: bool = False) -> Iterator[str]:
        """Yield the complete lines since the last call, and with `last` an unfinished one too."""
        while chunk := self._source.read(1024 * 1024):
            *complete, self._rest = (self._rest + chunk).split(b"\n")
            for line in complete:
                yield self._text(line)
            if len(self._rest) > LONGEST_LINE:
                self._dropped += len(self._rest)
                self._rest = b""
        if last and (self._rest or self._dropped):
            yield self._text(self._rest)
            self._rest = b""

    def _text(self, line: bytes) -> str:
        text = line.decode("utf-8", "replace")
        if self._dropped:
            text = f"[a line too long for the log: {self._dropped + len(line)} bytes left out]"
            self._dropped = 0
        return text

    def close(self) -> None:
        """Close both ends."""
        os.close(self.sink)
        self._source.close()


@dataclass(slots=True)
class _Supervision:
    run: Run
    on_line: Callable[[str, str], None]
    on_tick: Callable[[], None]
    grace: Mapping[str, float]
    stopped: str | None = None
    failure: Exception | None = None
    _kill_at: float | None = field(default=None)

    def follow(self, process: subprocess.Popen[bytes], tails: Sequence[Tail]) -> Outcome:
        descriptor = os.pidfd_open(process.pid) if hasattr(os, "pidfd_open") else None
        try:
            while not _ended(process, descriptor):
                self._look(tails)
                self._stop_if_told(process)
        finally:
            if descriptor is not None:
                os.close(descriptor)
        _end_group(process)
        self._look(tails, last=True)
        if self.failure is not None:
            raise self.failure
        return Outcome(process.returncode, self.stopped)

    def _look(self, tails: Sequence[Tail], *, last: bool = False) -> None:
        """Pass on output and tick; after a failure the tool is stopped and heard out in silence."""
        try:
            for stream, tail in zip(STREAMS, tails, strict=True):
                for line in tail.lines(last=last):
                    if self.failure is None:
                        self.on_line(stream, line)
            if not isinstance(self.failure, LeaseLostError):
                self.on_tick()
        except Exception as error:
            self.failure = self.failure or error

    def _stop_if_told(self, process: subprocess.Popen[bytes]) -> None:
        now = time.monotonic()
        if self._kill_at is not None:
            if now >= self._kill_at:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            return
        reason = self._reason(now)
        if reason is None:
            return
        self.stopped = reason
        self._kill_at = now + self.grace.get(reason, GRACE_SECONDS["lease lost"])
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)

    def _reason(self, now: float) -> str | None:
        if self.failure is not None:
            return "lease lost" if isinstance(self.failure, LeaseLostError) else "cancelled"
        if self.run.deadline is not None and now >= self.run.deadline:
            return "timed out"
        return self.run.should_stop()


def _ended(process: subprocess.Popen[bytes], descriptor: int | None) -> bool:
    """Wait a tick at most, and say whether the tool has ended; it is not reaped yet."""
    if descriptor is None:
        time.sleep(TICK_SECONDS)
        done = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return done is not None
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(TICK_SECONDS * 1000))
