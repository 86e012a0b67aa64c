from __future__ import annotations

import os
import shutil
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from provisioning.drivers import sandbox
from provisioning.drivers.base import DriverError
from provisioning.drivers.folders import lease_file, make_control_folder
from provisioning.drivers.supervision import ToolLostError, follow, supervise
from provisioning.drivers.tool import MARK, Outcome, Tool
from tests.provisioning.drivers.runs import MemoryRun

ROOT = os.geteuid() == 0
KINDS = [
    kind
    for kind, program in (("bubblewrap", "bwrap"), ("setpriv", "setpriv"))
    if shutil.which(program)
]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("CONDUCTOR_SANDBOX", request.param)
    sandbox._find.cache_clear()
    yield request.param
    sandbox._find.cache_clear()


@pytest.fixture
def bubblewrap(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if "bubblewrap" not in KINDS:
        pytest.skip("bubblewrap is not installed")
    monkeypatch.setenv("CONDUCTOR_SANDBOX", "bubblewrap")
    sandbox._find.cache_clear()
    yield
    sandbox._find.cache_clear()


@pytest.fixture
def run(tmp_path: Path) -> MemoryRun:
    tmp_path.chmod(0o755)
    work = tmp_path / "work"
    (work / "resource").mkdir(parents=True)
    make_control_folder(work / "resource")
    return MemoryRun(work / "resource")


def _run(run: MemoryRun, script: str) -> Outcome:
    return supervise(
        ["/bin/sh", "-c", script],
        run=run,
        folder=run.work_folder,
        environment={"PATH": os.environ["PATH"]},
    )


def _processes(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(folder):
                found.append(process)
        except psutil.Error:
            continue
    return found


def _assert_nothing_is_left(folder: Path, seconds: float = 5) -> None:
    """The sandbox's own first process ends a moment after the tool and its supervisor."""
    end = time.monotonic() + seconds
    while _processes(folder) and time.monotonic() < end:
        time.sleep(0.01)
    assert _processes(folder) == []


def _wait_for(file: Path, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not file.exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert file.exists()


def test_a_tool_works_in_its_folder_and_its_end_is_told(kind: str, run: MemoryRun) -> None:
    assert _run(run, "pwd; echo made > it; exit 3") == Outcome(3, None)
    assert run.text() == f"{run.work_folder}\n"
    assert (run.work_folder / "it").read_text() == "made\n"


def test_a_tool_can_gain_no_privileges(kind: str, run: MemoryRun) -> None:
    _run(run, "grep -E '^(NoNewPrivs|CapEff|CapBnd|Uid)' /proc/self/status; ulimit -c")
    said = run.text().split()
    assert said[said.index("NoNewPrivs:") + 1] == "1"
    assert said[-1] == "0"
    if ROOT and sandbox.find_sandbox(run.work_folder).own_user:
        assert said[said.index("Uid:") + 1] == str(sandbox.user_of(run.work_folder))
        assert said[said.index("CapEff:") + 1] == "0" * 16
        assert said[said.index("CapBnd:") + 1] == "0" * 16


def test_what_a_tool_wrote_can_be_taken_back(kind: str, run: MemoryRun) -> None:
    script = (
        "umask 0; mkdir a; echo it > a/it; echo > a/run; chmod 6777 a/run; ln -s /etc/passwd a/l"
    )
    passwd = Path("/etc/passwd").stat()
    assert _run(run, script).exit_code == 0
    sandbox.take_back(run.work_folder)
    made = [run.work_folder, *sorted(run.work_folder.glob("a/**/*"))]
    assert {path.lstat().st_uid for path in made} == {os.geteuid()}
    modes = {path.name: oct(path.stat().st_mode) for path in made if not path.is_symlink()}
    assert modes == {"resource": "0o40755", "it": "0o100644", "run": "0o100755"}
    assert Path("/etc/passwd").stat() == passwd


def test_tools_of_many_resources_hardly_ever_share_a_user() -> None:
    folders = [Path(f"/srv/tools/{uuid.UUID(int=number)}") for number in range(1000)]
    if sandbox._users() == sandbox.USERS:
        assert len({sandbox.user_of(folder) for folder in folders}) == 1000


@pytest.mark.parametrize(
    ("uid_map", "users"),
    [
        ("         0          0 4294967295\n", sandbox.USERS),
        ("0 1000 1\n1 100000 4294967294\n", sandbox.USERS),
        ("0 100000 65536\n", sandbox.FEWER_USERS),
    ],
)
def test_users_exist_in_the_namespace(uid_map: str, users: range) -> None:
    assert sandbox.users_in(uid_map) == users


def test_a_tool_sees_no_other_folder_and_no_other_process(bubblewrap: None, run: MemoryRun) -> None:
    secret = run.work_folder.parent / "other"
    secret.mkdir()
    (secret / "secret").write_text("hidden")
    _run(
        run,
        f"cat {secret}/secret; ls {Path.cwd()}/conductor; cat /proc/{os.getpid()}/environ; ls /proc",
    )
    assert "hidden" not in run.text()
    assert run.text().count("No such file or directory") == 3
    numbers = [int(line) for _, _, line in run.logged if line.strip().isdigit()]
    assert len(numbers) <= 6


def test_a_tool_cannot_prolong_its_own_lease(bubblewrap: None, run: MemoryRun) -> None:
    lease = lease_file(run.work_folder)
    lease.write_text(f"{time.monotonic() + 600:020.3f}\n")
    outcome = _run(run, f"echo 9999999999999999.999 > {lease}")
    assert outcome.exit_code != 0
    assert float(lease.read_text()) < time.monotonic() + 600


def test_a_lease_that_runs_out_is_seen_in_the_sandbox(kind: str, run: MemoryRun) -> None:
    lease = lease_file(run.work_folder)
    lease.write_text(f"{time.monotonic() + 0.5:020.3f}\n")
    with pytest.raises(ToolLostError):
        _run(run, "sleep 60")


def test_a_cancelled_tool_is_told_once_in_the_sandbox(kind: str, run: MemoryRun) -> None:
    ready, count = run.work_folder / "ready", run.work_folder / "count"
    script = f"trap 'echo int >> {count}; exit 7' INT; touch {ready}; while :; do sleep 0.05; done"
    tool = Tool.start(
        ["/bin/sh", "-c", script], run=run, folder=run.work_folder, environment=run.environment
    )
    _wait_for(ready)
    run.told = "cancelled"
    assert follow(tool, run=run) == Outcome(7, "cancelled")
    assert count.read_text() == "int\n"
    _assert_nothing_is_left(run.work_folder)


def test_a_tool_whose_supervisor_is_killed_stops_gracefully_in_the_sandbox(
    kind: str, run: MemoryRun
) -> None:
    ready, count = run.work_folder / "ready", run.work_folder / "count"
    script = (
        f"trap 'echo int >> {count}; sleep 0.3; echo done >> {count}; exit 7' INT; "
        f"touch {ready}; while :; do sleep 0.05; done"
    )
    tool = Tool.start(
        ["/bin/sh", "-c", script], run=run, folder=run.work_folder, environment=run.environment
    )
    _wait_for(ready)
    supervisor, keeper = (
        process for process in _processes(run.work_folder) if process.cmdline()[1:3] == ["-I", "-S"]
    )
    assert keeper.ppid() == supervisor.pid
    supervisor.send_signal(signal.SIGKILL)
    with pytest.raises(ToolLostError, match="supervisor was killed"):
        follow(tool, run=run)
    assert count.read_text() == "int\ndone\n"
    _assert_nothing_is_left(run.work_folder)


def test_what_hides_from_a_killed_supervisor_is_ended(bubblewrap: None, run: MemoryRun) -> None:
    hidden, seconds = run.work_folder / "hidden", f"77.{os.getpid()}"
    script = f"env -i setsid sh -c 'touch {hidden}; sleep {seconds}' & wait"
    tool = Tool.start(
        ["/bin/sh", "-c", script], run=run, folder=run.work_folder, environment=run.environment
    )
    _wait_for(hidden)
    for process in _processes(run.work_folder):
        with suppress(psutil.NoSuchProcess):
            if process.cmdline()[1:3] == ["-I", "-S"]:
                process.kill()
    tool.end(run, patience=1)
    assert not [
        each for each in psutil.process_iter(["cmdline"]) if seconds in (each.info["cmdline"] or ())
    ]


def test_what_a_tool_leaves_running_is_ended_in_the_sandbox(kind: str, run: MemoryRun) -> None:
    assert _run(run, "setsid sleep 60 & sleep 0.1").exit_code == 0
    _assert_nothing_is_left(run.work_folder)


def test_more_paths_can_be_shown(
    bubblewrap: None, run: MemoryRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, written = tmp_path / "seen", tmp_path / "written"
    seen.mkdir()
    written.mkdir(mode=0o777)
    written.chmod(0o777)
    (seen / "it").write_text("shown\n")
    monkeypatch.setenv("CONDUCTOR_SANDBOX_PATHS", f"{seen}:{written}=rw")
    _run(run, f"cat {seen}/it; touch {seen}/no; touch {written}/yes")
    assert run.text().startswith("shown\n")
    assert (written / "yes").exists()
    assert not (seen / "no").exists()


def test_an_unknown_sandbox_is_refused_with_the_known_ones(
    run: MemoryRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONDUCTOR_SANDBOX", "jail")
    with pytest.raises(DriverError, match="must be one of auto, bubblewrap, setpriv, none"):
        _run(run, "touch ran")
    assert not (run.work_folder / "ran").exists()


@pytest.mark.parametrize(
    ("kind", "own_user", "user", "says"),
    [
        ("bubblewrap", True, 0, ""),
        ("bubblewrap", False, 1000, ""),
        ("bubblewrap", False, 0, "Tools run as root here"),
        ("setpriv", True, 0, "Tools see whatever any user of this host may see."),
        ("setpriv", False, 1000, "Tools can read what the worker can"),
        ("none", False, 0, "Tools run as root here"),
    ],
)
def test_what_a_tool_reaches_that_it_should_not_is_said(
    kind: str, own_user: bool, user: int, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    said = sandbox.Sandbox(kind, own_user).weakness()
    assert said.startswith(says) if says else said == ""
