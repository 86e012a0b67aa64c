from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from provisioning.drivers.base import LeaseLostError
from provisioning.drivers.folders import (
    control_folder,
    lease_file,
    make_control_folder,
    said_folder,
)
from provisioning.drivers.output import printable
from provisioning.drivers.supervision import ToolLostError, follow, supervise
from provisioning.drivers.supervisor import LEASE_GRACE_SECONDS
from provisioning.drivers.tool import STREAMS, Outcome, Tool
from tests.provisioning.drivers.runs import MemoryRun

ROOT = Path(__file__).parents[3]


def _run(run: MemoryRun, script: str, **options: object) -> Outcome:
    return supervise(
        ["/bin/sh", "-c", script],
        run=run,
        folder=run.work_folder,
        environment={"PATH": os.environ["PATH"], "GIVEN": "yes"},
        **options,  # type: ignore[arg-type]
    )


def _counting(ready: Path, count: Path) -> str:
    """Return a script that notes each interrupt and ends with status 7 a moment after the first."""
    return (
        f"trap 'echo int >> {count}; sleep 0.3; exit 7' INT; "
        f"touch {ready}; while :; do sleep 0.05; done"
    )


def _told_when(run: MemoryRun, file: Path, reason: str = "cancelled") -> threading.Thread:
    """Tell the run to stop as soon as the file is there."""

    def wait() -> None:
        _wait_for(file)
        run.told = reason

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


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


def test_output_is_logged_by_stream_and_the_exit_code_returned(run: MemoryRun) -> None:
    outcome = _run(run, "echo out; echo err >&2; printf 'no newline'; exit 3")
    assert outcome == Outcome(3, None)
    assert sorted(run.logged) == [
        ("stderr", "info", "err\n"),
        ("stdout", "info", "no newline\n"),
        ("stdout", "info", "out\n"),
    ]


def test_the_tool_sees_the_given_environment_only(
    run: MemoryRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOT_FOR_TOOLS", "secret")
    _run(run, "env")
    assert "GIVEN=yes" in run.text()
    assert "NOT_FOR_TOOLS" not in run.text()


def test_output_goes_to_files_that_only_the_owner_reads(run: MemoryRun) -> None:
    _run(run, "ls -l /proc/self/fd")
    assert f"{run.work_folder}.run/stdout.log" in run.text()
    assert "pipe:" not in run.text()
    assert (control_folder(run.work_folder) / "stdout.log").stat().st_mode & 0o777 == 0o600


def test_control_characters_are_stripped() -> None:
    text = "\x1b[31mred\x1b[0m \x1b]0;title\x07bell\x07 tab\t nul\x00 \x9bcsi\r\nnext"
    assert printable(text) == "red bell tab\t nul csi\nnext"


def test_one_interrupt_is_sent_and_the_tool_may_end_in_its_own_way(run: MemoryRun) -> None:
    ready, count = run.work_folder / "ready", run.work_folder / "count"
    thread = _told_when(run, ready)
    outcome = _run(run, _counting(ready, count))
    thread.join()
    assert outcome == Outcome(7, "cancelled")
    assert count.read_text() == "int\n"


def test_a_tool_that_will_not_stop_is_killed_with_its_children_after_the_grace(
    run: MemoryRun,
) -> None:
    ready, child = run.work_folder / "ready", run.work_folder / "child"
    script = f"trap '' INT; sleep 60 & echo $! > {child}; touch {ready}; wait; sleep 60"
    thread = _told_when(run, ready)
    begin = time.monotonic()
    outcome = _run(run, script, grace={"cancelled": 0.2})
    thread.join()
    assert outcome == Outcome(-signal.SIGKILL, "cancelled")
    assert time.monotonic() - begin < 5
    assert _gone(int(child.read_text()))


def test_what_a_tool_leaves_running_is_killed(run: MemoryRun) -> None:
    child = run.work_folder / "child"
    assert _run(run, f"sleep 60 & echo $! > {child}").exit_code == 0
    assert _gone(int(child.read_text()))


def test_the_deadline_stops_the_tool(run: MemoryRun) -> None:
    run.deadline = time.monotonic() + 0.2
    outcome = _run(run, "sleep 60")
    assert outcome == Outcome(-signal.SIGINT, "timed out")


def test_a_lost_lease_stops_the_tool_and_is_raised(run: MemoryRun) -> None:
    def lost() -> None:
        raise LeaseLostError("Another worker has it.")

    begin = time.monotonic()
    with pytest.raises(LeaseLostError):
        _run(run, "sleep 60", on_tick=lost)
    assert time.monotonic() - begin < 5


def test_a_failing_log_stops_the_tool_and_is_raised(run: MemoryRun) -> None:
    def broken(stream: str, line: str) -> None:
        raise RuntimeError("the database is gone")

    with pytest.raises(RuntimeError, match="the database is gone"):
        _run(run, "echo x; sleep 60", on_line=broken)


def test_a_missing_tool_is_named(run: MemoryRun) -> None:
    outcome = supervise(
        ["/nowhere/tool"], run=run, folder=run.work_folder, environment={"PATH": ""}
    )
    assert outcome.exit_code == 127
    assert "/nowhere/tool" in run.text()


def test_a_line_too_long_for_the_log_is_left_out(run: MemoryRun) -> None:
    _run(run, "head -c 20000000 /dev/zero | tr '\\0' x; echo; echo after")
    assert len(run.text()) < 200
    assert run.text().endswith("after\n")


def test_invalid_text_is_shown_as_far_as_it_can_be(run: MemoryRun) -> None:
    _run(run, "printf 'a\\377b\\n'")
    assert run.text() == "a\N{REPLACEMENT CHARACTER}b\n"


def test_the_tool_ignores_no_signal_that_the_worker_ignores(run: MemoryRun) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _told_when(run, run.work_folder / "ready")
        outcome = _run(run, f"touch {run.work_folder}/ready; exec sleep 60")
    finally:
        signal.signal(signal.SIGINT, before)
    assert outcome == Outcome(-signal.SIGINT, "cancelled")


def _start_and_die(folder: Path, script: str) -> None:
    """Let another process start the tool for attempt 1 of the step, and be killed at once."""
    program = textwrap.dedent(
        f"""
        import os
        from pathlib import Path
        from provisioning.drivers.tool import Tool
        from tests.provisioning.drivers.runs import MemoryRun
        run = MemoryRun(Path({str(folder)!r}))
        Tool.start(["/bin/sh", "-c", {script!r}], run=run, folder=run.work_folder,
                   environment=run.environment)
        os.kill(os.getpid(), 9)
        """
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)


def test_the_next_attempt_follows_the_tool_of_a_killed_worker_to_its_end(tmp_path: Path) -> None:
    go = tmp_path / "go"
    _start_and_die(
        tmp_path, f"echo before; until [ -e {go} ]; do sleep 0.02; done; echo after; exit 4"
    )
    run = MemoryRun(tmp_path, attempt=2)
    left = Tool.left_in(tmp_path)
    assert left is not None
    assert (left.was_started_before(run), left.runs()) == (True, True)
    go.touch()
    assert follow(left, run=run) == Outcome(4, None)
    assert run.text() == "before\nafter\n"


def test_what_a_tool_said_and_how_it_ended_waits_for_the_next_attempt(tmp_path: Path) -> None:
    _start_and_die(tmp_path, "echo done")
    _wait_for(said_folder(tmp_path) / "end")
    run = MemoryRun(tmp_path, attempt=2)
    left = Tool.left_in(tmp_path)
    assert left is not None
    assert follow(left, run=run) == Outcome(0, None)
    assert run.text() == "done\n"


def test_only_the_attempt_just_before_left_a_tool_to_follow(tmp_path: Path) -> None:
    _start_and_die(tmp_path, "true")
    left = Tool.left_in(tmp_path)
    assert left is not None
    assert not left.was_started_before(MemoryRun(tmp_path, attempt=3))
    assert not left.was_started_before(MemoryRun(tmp_path, step=2, attempt=2))
    left.take_over(MemoryRun(tmp_path, attempt=2))
    assert left.was_started_before(MemoryRun(tmp_path, attempt=3))


def test_who_follows_a_tool_holds_it_to_the_time_that_it_was_started_with(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = f"trap 'sleep 0.5; exit 7' INT; touch {ready}; while :; do sleep 0.05; done"
    tool = Tool.start(
        ["/bin/sh", "-c", script],
        run=MemoryRun(tmp_path, deadline=time.monotonic() + 1),
        folder=tmp_path,
        environment={"PATH": os.environ["PATH"]},
    )
    later = MemoryRun(tmp_path, attempt=2, deadline=time.monotonic() + 1000)

    assert follow(tool, run=later) == Outcome(7, "timed out")

    assert (tool.files / "orders").read_text() == "stop\ttimed out\t600.0\n"
    assert tool.deadline() is None


def test_a_tool_whose_lease_runs_out_is_told_once(tmp_path: Path) -> None:
    ready, count = tmp_path / "ready", tmp_path / "count"
    make_control_folder(tmp_path)
    lease_file(tmp_path).write_text(str(time.monotonic() + 0.5))
    _start_and_die(tmp_path, _counting(ready, count))
    run = MemoryRun(tmp_path, attempt=2)
    left = Tool.left_in(tmp_path)
    assert left is not None
    with pytest.raises(ToolLostError, match="interrupted when its worker was lost"):
        follow(left, run=run)
    assert left.outcome() == Outcome(7, "lease lost")
    assert count.read_text() == "int\n"


def _parents(folder: Path) -> tuple[psutil.Process, psutil.Process]:
    """Return the keeper and the supervisor of the tool in a folder."""
    _wait_for(said_folder(folder) / "tool")
    tool = psutil.Process(int((said_folder(folder) / "tool").read_text()))
    keeper = tool.parent()
    assert keeper is not None
    supervisor = keeper.parent()
    assert supervisor is not None
    return keeper, supervisor


@pytest.mark.parametrize("victim", [0, 1])
def test_a_tool_whose_keeper_or_supervisor_is_killed_is_told_once(
    run: MemoryRun, victim: int
) -> None:
    ready, count = run.work_folder / "ready", run.work_folder / "count"
    tool = Tool.start(
        ["/bin/sh", "-c", _counting(ready, count)],
        run=run,
        folder=run.work_folder,
        environment=run.environment,
    )
    _wait_for(ready)
    _parents(run.work_folder)[victim].kill()
    with pytest.raises(ToolLostError, match="supervisor was killed"):
        follow(tool, run=run)
    assert count.read_text() == "int\n"


def test_a_tool_that_was_told_is_not_told_again_when_its_supervisor_is_killed(
    run: MemoryRun,
) -> None:
    ready, count = run.work_folder / "ready", run.work_folder / "count"
    script = f"trap 'echo int >> {count}' INT; touch {ready}; until test -e {ready}.end; do sleep 0.02; done"
    tool = Tool.start(
        ["/bin/sh", "-c", script], run=run, folder=run.work_folder, environment=run.environment
    )
    _wait_for(ready)
    tool.order("stop", "cancelled", 60)
    _wait_for(count)
    _, supervisor = _parents(run.work_folder)
    supervisor.kill()
    supervisor.wait()
    keeper_told_again = run.work_folder / "later"
    threading.Timer(0.3, keeper_told_again.touch).start()
    _wait_for(keeper_told_again)
    ready.with_name("ready.end").touch()
    with pytest.raises(ToolLostError, match="supervisor was killed"):
        follow(tool, run=run)
    assert count.read_text() == "int\n"


def test_what_a_tool_left_when_its_supervisor_was_killed_is_ended(run: MemoryRun) -> None:
    child = run.work_folder / "child"
    script = f"setsid sleep 60 & echo $! > {child}.new; mv {child}.new {child}; wait"
    tool = Tool.start(
        ["/bin/sh", "-c", script], run=run, folder=run.work_folder, environment=run.environment
    )
    _wait_for(child)
    leader = int((tool.said / "tool").read_text())
    _parents(run.work_folder)[1].kill()
    while not tool.wait(0.1):
        pass
    tool.end(run)
    assert _gone(leader)
    assert _gone(int(child.read_text()))


def test_a_daemon_of_the_tool_is_ended_with_it(run: MemoryRun) -> None:
    child = run.work_folder / "child"
    assert _run(run, f"setsid sh -c 'env -i sleep 60 & echo $! > {child}'").exit_code == 0
    assert _gone(int(child.read_text()))


def test_a_run_without_its_lease_leaves_the_tool_to_the_supervisor(run: MemoryRun) -> None:
    ready = run.work_folder / "ready"
    _told_when(run, ready, "lease lost")
    with pytest.raises(LeaseLostError):
        _run(run, f"touch {ready}; sleep 1")
    left = Tool.left_in(run.work_folder)
    assert left is not None
    while not left.wait(0.05):
        pass
    assert left.outcome() == Outcome(0, None)


def test_a_later_order_may_shorten_the_grace(run: MemoryRun) -> None:
    ready = run.work_folder / "ready"
    tool = Tool.start(
        ["/bin/sh", "-c", f"trap '' INT; touch {ready}; sleep 60; sleep 60"],
        run=run,
        folder=run.work_folder,
        environment=run.environment,
    )
    _wait_for(ready)
    tool.order("stop", "cancelled", 600)
    _wait_for(tool.said / "told")
    tool.order("stop", "cancelled", 0.1)
    assert tool.wait(5)
    assert tool.outcome() == Outcome(-signal.SIGKILL, "cancelled")


def test_a_tool_whose_worker_was_killed_before_it_ran_is_lost(run: MemoryRun) -> None:
    tool = Tool(run.work_folder)
    tool.files.mkdir(exist_ok=True)
    for stream in STREAMS:
        (tool.files / f"{stream}.log").touch()
    tool.take_over(run)
    with pytest.raises(ToolLostError):
        follow(tool, run=run)
    assert Tool.left_in(run.work_folder) is None


def test_the_end_of_the_lease_shortens_the_grace_of_a_cancelled_tool(run: MemoryRun) -> None:
    ready, lease = run.work_folder / "ready", lease_file(run.work_folder)
    tool = Tool.start(
        ["/bin/sh", "-c", f"trap '' INT; touch {ready}; sleep 60; sleep 60"],
        run=run,
        folder=run.work_folder,
        environment=run.environment,
    )
    _wait_for(ready)
    tool.order("stop", "cancelled", 600)
    _wait_for(tool.said / "told")
    lease.write_text(str(time.monotonic() - LEASE_GRACE_SECONDS))
    assert tool.wait(5)
    assert tool.outcome() == Outcome(-signal.SIGKILL, "cancelled")
