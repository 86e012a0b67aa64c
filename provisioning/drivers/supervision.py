"""Run one tool for a `Run` so that neither it nor the worker can be left in the dark."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from provisioning.drivers import supervisor
from provisioning.drivers.base import DriverError, LeaseLostError, Run
from provisioning.drivers.output import Tail, printable
from provisioning.drivers.tool import GRACE_SECONDS, STREAMS, TICK_SECONDS, Outcome, Tool


class ToolLostError(DriverError):
    """Say that a tool was interrupted for want of a worker or killed with its supervisor."""

    def __init__(self, message: str) -> None:
        super().__init__(message, permanent=False)


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
