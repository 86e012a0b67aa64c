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

from provisioning.drivers.base import DriverError, LeaseLostError
from provisioning.drivers.supervisor import Outcome, printable, supervise
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
    assert f"{run.work_folder}/stdout.log" in run.text()
    assert "pipe:" not in run.text()
    assert (run.work_folder / "stdout.log").stat().st_mode & 0o777 == 0o600


def test_control_characters_are_stripped() -> None:
    text = "\x1b[31mred\x1b[0m \x1b]0;title\x07bell\x07 tab\t nul\x00 \x9bcsi\r\nnext"
    assert printable(text) == "red bell tab\t nul csi\nnext"


def test_one_interrupt_is_sent_and_the_tool_may_end_in_its_own_way(run: MemoryRun) -> None:
    ready, count = run.work_folder / "ready", run.work_folder / "count"
    script = f"""
    trap 'echo int >> {count}; sleep 0.3; exit 7' INT
    touch {ready}; while :; do sleep 0.05; done
    """
    thread = _told_when(run, ready)
    outcome = _run(run, script)
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


@pytest.mark.parametrize(
    ("disposition", "place"),
    [
        ("SIG_DFL", "main thread"),
        ("SIG_IGN", "main thread"),
        ("SIG_DFL", "helper thread"),
    ],
)
def test_an_orphan_is_interrupted_when_its_worker_is_killed(
    tmp_path: Path, disposition: str, place: str
) -> None:
    ready, heard = tmp_path / "ready", tmp_path / "heard"
    tool = f"trap 'echo int > {heard}; exit' INT; touch {ready}; while :; do sleep 0.05; done"
    program = textwrap.dedent(
        f"""
        import signal, threading
        from pathlib import Path
        from provisioning.drivers.supervisor import supervise
        from tests.provisioning.drivers.runs import MemoryRun
        signal.signal(signal.SIGINT, signal.{disposition})
        run = MemoryRun(Path({str(tmp_path)!r}))
        def work():
            supervise(["/bin/sh", "-c", {tool!r}], run=run, folder=run.work_folder,
                      environment=run.environment)
        if {place!r} == "main thread":
            work()
        else:
            thread = threading.Thread(target=work); thread.start(); thread.join()
        """
    )
    worker = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    _wait_for(ready)
    assert ready.exists()
    worker.kill()
    worker.wait()
    _wait_for(heard, 3)
    assert heard.exists()


def test_a_tool_that_cannot_be_started_is_a_permanent_error(
    run: MemoryRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DriverError, match="setpriv is not installed") as failed:
        _run(run, "true")
    assert failed.value.permanent is True
