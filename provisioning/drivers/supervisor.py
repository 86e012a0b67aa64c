"""Keep one tool running whatever becomes of the worker that started it: a program of its own.

    python -I -S supervisor.py FOLDER CONTROL LEASE LOCK TOOL [ARGUMENT ...]

It stands between a worker and its tool so that the worker may die, be upgraded or be replaced while
the tool goes on. It has a session of its own, needs no database and imports little, because every run
of a tool pays for its start. LOCK is an inherited descriptor of a locked file: the lock tells others,
for as long as this process lives, that a tool may run here. FOLDER is the tool's own. Worker and
supervisor speak through files:

| file              | written by | holds |
|-------------------|------------|-------|
| LEASE             | worker     | until when (seconds of CLOCK_MONOTONIC) the worker holds the step; none: for ever |
| CONTROL/orders    | worker     | lines of tab-separated words: `deadline SECONDS GRACE`, `stop REASON GRACE` |
| CONTROL/said/tool | supervisor | the tool's process id, as soon as it runs |
| CONTROL/said/told | supervisor | why the tool was told to stop, before it is told |
| CONTROL/said/code | keeper     | the tool's exit code (negative: the signal) |
| CONTROL/said/end  | supervisor | the same, when nothing of the tool runs any more |

The tool is told to stop once, by one SIGINT to its group: a second one makes Terraform give up its
state. It has as many seconds as the order grants (a later order may shorten that, not prolong it), and
no more than any tool has after the end of its lease; then its group is killed. Whatever it left running
is killed before `end` is written: orphans are given to this process, not to init.

Between this process and the tool stands a keeper, who alone sends the tool signals, and knows whether it
was told. It is asked by signals of its own, by this process or, when that is killed, by the kernel; so
whoever dies after the tool was told, it is not told again. If the keeper is killed, the kernel tells the
tool. Such a parent-death signal belongs to the thread that forked; both processes have only one.
"""

from __future__ import annotations

# The modules `ctypes` and `signal` around these take as long to import as all the rest.
import _ctypes
import _signal as signal  # type: ignore[import-not-found]
import os
import select
import sys
import time

TICK_SECONDS = 0.05
LEASE_LOST = "lease lost"
TIMED_OUT = "timed out"
LEASE_GRACE_SECONDS = 25.0

_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_NOT_STARTED = 127
_TELL, _KILL = signal.SIGUSR1, signal.SIGUSR2  # what a keeper is asked for


class Supervisor:
    """Hold what is known of the one tool: its keeper, and when it was told to stop."""

    def __init__(self, folder: str, control: str, lease: str, arguments: list[str]) -> None:
        self.folder, self.lease, self.arguments = folder, lease, arguments
        self.orders, self.said = os.path.join(control, "orders"), os.path.join(control, "said")
        self.keeper = 0
        self.told_at: float | None = None
        self.kill_at = 0.0

    def run(self) -> None:
        """Start the tool, obey until it has ended, sweep up after it and tell how it ended."""
        os.chdir(self.folder)
        linux = sys.platform == "linux"
        if linux:
            _prctl(_SET_CHILD_SUBREAPER, 1)
        for name in ("told", "code", "end"):
            self._reserve(name)
        self._start(linux)
        descriptor = os.pidfd_open(self.keeper) if linux else None
        while not self._has_ended(descriptor):
            self._obey(time.monotonic())
        os.waitpid(self.keeper, 0)
        code = self._code()
        if code is None:  # the keeper was killed: the kernel has told the tool, who needs its time
            self._sweep(time.monotonic() + LEASE_GRACE_SECONDS)
        else:
            self._sweep(time.monotonic())
            self._write("end", code)

    def _start(self, linux: bool) -> None:
        supervisor = os.getpid()
        self.keeper = os.fork()
        if self.keeper:
            return
        try:
            keeper = Keeper(linux, supervisor)
            keeper.start(self.arguments)
            self._write("tool", str(keeper.tool))
            self._write("code", str(keeper.wait()))
        finally:
            os._exit(0)

    def _has_ended(self, descriptor: int | None) -> bool:
        if descriptor is not None:
            return bool(select.select([descriptor], [], [], TICK_SECONDS)[0])
        time.sleep(TICK_SECONDS)
        done = os.waitid(os.P_PID, self.keeper, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return done is not None

    def _obey(self, now: float) -> None:
        orders = self._given()
        stop = orders.get("stop")
        if self.told_at is not None:
            if stop is not None:
                self.kill_at = min(self.kill_at, self.told_at + float(stop[1]))
            # Whoever may take the step after its lease counts on the tool's being gone by then.
            if now >= min(self.kill_at, self._lease_until() + LEASE_GRACE_SECONDS):
                _kill(self.keeper, _KILL)
            return
        deadline = orders.get("deadline")
        if stop is not None:
            self._tell(stop[0], float(stop[1]), now)
        elif deadline is not None and now >= float(deadline[0]):
            self._tell(TIMED_OUT, float(deadline[1]), now)
        elif now >= self._lease_until():
            self._tell(LEASE_LOST, LEASE_GRACE_SECONDS, now)

    def _tell(self, reason: str, grace: float, now: float) -> None:
        self._write("told", reason)
        self.told_at, self.kill_at = now, now + grace
        _kill(self.keeper, _TELL)

    def _given(self) -> dict[str, list[str]]:
        try:
            with open(self.orders) as file:
                lines = [line.rstrip("\n").split("\t") for line in file]
        except FileNotFoundError:
            return {}
        return {words[0]: words[1:] for words in lines if len(words) == 3}

    def _lease_until(self) -> float:
        try:
            with open(self.lease) as file:
                return float(file.read())
        except (FileNotFoundError, ValueError):
            return float("inf")

    def _sweep(self, after: float) -> None:
        """Wait until nothing of the tool runs, wherever it went; kill what does after some time."""
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                for child in _children() if time.monotonic() >= after else ():
                    _kill(child, signal.SIGKILL)
                time.sleep(0.005)

    def _code(self) -> str | None:
        """Return the tool's exit code as the keeper heard it."""
        try:
            with open(os.path.join(self.said, "code")) as file:
                return file.read()
        except FileNotFoundError:
            return None

    def _reserve(self, name: str) -> None:
        """Take room for a file to be written, which a full disk would not have any more."""
        self._fill(name, " " * 32)

    def _write(self, name: str, text: str) -> None:
        self._fill(name, text)
        path = os.path.join(self.said, name)
        os.replace(path + ".new", path)

    def _fill(self, name: str, text: str) -> None:
        path = os.path.join(self.said, name + ".new")
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            os.ftruncate(descriptor, os.write(descriptor, text.encode()))
        finally:
            os.close(descriptor)


class Keeper:
    """Be the tool's parent, and pass signals on to it: the one to stop only once."""

    def __init__(self, linux: bool, supervisor: int) -> None:
        self.linux = linux
        self.tool = 0
        self.is_asked = self.is_told = False
        signal.signal(_TELL, lambda *_: self._tell())
        signal.signal(_KILL, lambda *_: self._kill())
        if linux:
            _prctl(_SET_PDEATHSIG, _TELL)
        if os.getppid() != supervisor:  # it died before the signal was set
            os._exit(0)

    def start(self, arguments: list[str]) -> None:
        """Start the tool, and tell it at once if that was asked before it was there."""
        keeper = os.getpid()
        # What the tool is told before it hears signals itself waits for that.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        tool = os.fork()
        if not tool:
            self._become(arguments, keeper)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        self.tool = tool
        if self.is_asked:
            self._tell()

    def wait(self) -> int:
        """Wait for the tool, kill the rest of its group, and return its exit code (negative: signal)."""
        os.waitid(os.P_PID, self.tool, os.WEXITED | os.WNOWAIT)
        # It is not reaped yet: its number cannot be another process's.
        _kill_group(self.tool, signal.SIGKILL)
        _, status = os.waitpid(self.tool, 0)
        return os.waitstatus_to_exitcode(status)

    def _tell(self) -> None:
        self.is_asked = True
        if self.tool and not self.is_told:
            self.is_told = True
            _kill_group(self.tool, signal.SIGINT)

    def _kill(self) -> None:
        if self.tool:
            _kill_group(self.tool, signal.SIGKILL)

    def _become(self, arguments: list[str], keeper: int) -> None:
        try:
            os.setsid()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, _TELL, _KILL):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            if self.linux:
                _prctl(_SET_PDEATHSIG, signal.SIGINT)
            if os.getppid() == keeper:
                os.execvp(arguments[0], arguments)  # noqa: S606 -- no shell is wanted
        except OSError as error:
            sys.stderr.write(f"{arguments[0]} could not be started: {error.strerror}.\n")
            sys.stderr.flush()
        os._exit(_NOT_STARTED)


def _prctl(option: int, value: int) -> None:
    function = _ctypes.dlsym(_ctypes.dlopen(None, 0), "prctl")  # type: ignore[arg-type]
    _ctypes.call_function(function, (option, value, 0, 0, 0))


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(number) for number in file.read().split()]
    except OSError:  # no Linux: the tool's group was all that could be found
        return []


def _kill_group(leader: int, number: int) -> None:
    try:
        os.killpg(leader, number)
    except (ProcessLookupError, PermissionError):
        _kill(leader, number)  # it has not made its group yet


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # which is what was wanted


def main() -> None:
    """Supervise the tool named on the command line."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # What ends a whole machine or terminal reaches the tool as well, and once is enough for it.
        signal.signal(number, lambda *_: None)
    os.umask(0o077)  # what a tool writes, such as a state, is for its own user
    folder, control, lease, lock, *arguments = sys.argv[1:]
    os.set_inheritable(int(lock), False)
    Supervisor(folder, control, lease, arguments).run()


if __name__ == "__main__":
    main()
