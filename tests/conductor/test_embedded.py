from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path

import psycopg
import pytest
from django.core.exceptions import ImproperlyConfigured

from conductor.embedded import files
from conductor.embedded.owner import Owner
from conductor.embedded.process import find_postmaster
from conductor.embedded.server import Server

ROOT = Path(__file__).parents[2]
is_root = os.geteuid() == 0


@pytest.fixture
def var() -> Generator[Path]:
    """Return a var folder that the server's owner can reach, which pytest's own folders are not."""
    base = Path(tempfile.mkdtemp(prefix="embedded-", dir="/tmp"))
    base.chmod(0o711)
    yield base / "var"
    for folder in (base / "var", *base.glob("*/var"), *base.glob("var*")):
        Server(folder).stop()
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="module")
def new_data() -> Generator[list[Path]]:
    """Return the data of a server that has been started once, and its password, to be copied."""
    base = Path(tempfile.mkdtemp(prefix="embedded-", dir="/tmp"))
    base.chmod(0o711)
    server = Server(base / "var")
    server.ensure()
    server.stop()
    yield [base / "var" / name for name in ("postgres", "postgres-password")]
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def used_var(var: Path, new_data: list[Path]) -> Path:
    """Return a var folder that has its data already, for tests of what comes after."""
    var.mkdir(mode=0o711)
    subprocess.run(["cp", "-a", *new_data, var], check=True)
    return var


def manage(var: Path, *words: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    return subprocess.Popen(
        [sys.executable, "manage.py", *words],
        cwd=ROOT,
        env=environment | {"CONDUCTOR_VAR_DIR": str(var)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def postmaster(server: Server) -> int:
    place = server.place()
    assert place is not None
    process = find_postmaster(place.data)
    assert process is not None
    return process.pid


def query(server: Server, statement: str) -> object:
    with psycopg.connect(server.ensure().url(), autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchone() if cursor.description else None


def test_commands_at_once_start_one_server_that_outlives_them(var: Path) -> None:
    commands = [manage(var, "embedded", "start") for _ in range(3)]
    answers = [command.communicate(timeout=60)[0] for command in commands]

    assert [command.returncode for command in commands] == [0, 0, 0], answers
    assert len(set(answers)) == 1
    log = (var / "postgres.log").read_text()
    assert log.count("starting PostgreSQL") == 1
    assert query(Server(var), "SELECT 41 + 1") == (42,)


@pytest.mark.parametrize(
    "words",
    [
        ("check",),
        ("embedded", "status"),
        ("help", "migrate"),
        ("score", "lint", "examples/reports/score.yaml"),
    ],
)
def test_command_without_database_starts_nothing(var: Path, words: tuple[str, ...]) -> None:
    command = manage(var, *words)
    output = command.communicate(timeout=60)[0]
    assert command.returncode == 0, output
    assert not list(var.glob("*"))


def test_tcp_takes_the_password_and_nothing_else(used_var: Path) -> None:
    address = Server(used_var).ensure()

    assert query(Server(used_var), "SELECT current_user::text") == ("conductor",)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(address.url().replace(address.password, "wrong"))
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(address.url().replace(":" + address.password, ""), passfile="/dev/null")
    assert stat.S_IMODE((used_var / "postgres-password").stat().st_mode) == 0o600


def test_new_role_gets_into_its_own_database_only(used_var: Path) -> None:
    address = Server(used_var).ensure()
    query(Server(used_var), "CREATE ROLE app LOGIN PASSWORD 'secret'")
    url = f"postgres://app:secret@{address.host}:{address.port}"

    psycopg.connect(f"{url}/postgres").close()
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(f"{url}/conductor")


def test_long_path_gets_a_short_private_socket(var: Path) -> None:
    deep = var.parent / ("long-" * 30) / "var"
    deep.parent.mkdir(mode=0o711)
    address = Server(deep).ensure()
    folder = Path(address.socket_dir)

    assert len(str(deep)) > 150
    assert len(address.socket_dir) < 40
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert folder.stat().st_uid == Owner.current().uid
    with psycopg.connect(
        host=address.socket_dir, port=address.port, user=address.user,
        password=address.password, dbname="conductor",
    ) as connection:  # fmt: skip
        assert connection.execute("SELECT inet_server_addr()").fetchone() == (None,)
    Server(deep).stop()
    assert Server(deep).ensure().socket_dir == address.socket_dir
    Server(deep).stop()
    folder.rmdir()


def test_socket_folder_replaced_by_a_link_is_not_used(var: Path, tmp_path: Path) -> None:
    data = var / ("x" * 100)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    chosen = files.choose_sockets(data, link, Owner.current())
    assert chosen != link
    chosen.rmdir()


def test_stop_is_clean_and_data_and_port_stay(used_var: Path) -> None:
    server = Server(used_var)
    port = server.ensure().port
    query(server, "CREATE TABLE kept AS SELECT 7 AS value")

    assert server.stop() is True
    assert "database system is shut down" in (used_var / "postgres.log").read_text()
    assert server.address() is None
    assert server.stop() is False
    assert query(server, "SELECT value FROM kept") == (7,)
    assert server.ensure().port == port


def test_killed_server_is_started_again_with_its_data(used_var: Path) -> None:
    server = Server(used_var)
    server.ensure()
    query(server, "CREATE TABLE kept AS SELECT 7 AS value")
    before = postmaster(server)
    os.kill(before, signal.SIGKILL)
    while server.address() is not None:
        time.sleep(0.01)

    assert query(server, "SELECT value FROM kept") == (7,)
    assert postmaster(server) != before


def test_process_id_reused_by_another_program_is_not_taken_for_the_server(used_var: Path) -> None:
    server = Server(used_var)
    server.ensure()
    place = server.place()
    assert place is not None
    notes = (place.data / "postmaster.pid").read_text()
    server.stop()
    stale = notes.replace(notes.splitlines()[0], str(os.getpid()), 1)
    (place.data / "postmaster.pid").write_text(stale)

    assert server.address() is None
    assert server.stop() is False
    assert query(server, "SELECT 1") == (1,)


def test_taken_port_is_moved_from(used_var: Path) -> None:
    server = Server(used_var)
    port = server.ensure().port
    server.stop()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        moved = server.ensure().port
    assert moved != port
    server.stop()
    assert server.ensure().port == moved


def test_wanted_port_is_used_or_refused(var: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ImproperlyConfigured, match=f"cannot listen on port {port}"):
            Server(var, port).ensure()
        assert not (var / "postgres.json").exists()
    assert Server(var, port).ensure().port == port


def test_failure_shows_the_log_and_the_ways_out(used_var: Path) -> None:
    server = Server(used_var)
    server.ensure()
    place = server.place()
    assert place is not None
    server.stop()
    (place.data / "pg_hba.conf").write_text("nonsense\n")

    with pytest.raises(ImproperlyConfigured) as refused:
        server.ensure()
    assert "invalid connection type" in str(refused.value)
    assert str(used_var / "postgres.log") in str(refused.value)
    assert "set DATABASE_URL=postgres://" in str(refused.value)
    assert server.address() is None


def test_data_of_another_major_version_is_refused(used_var: Path) -> None:
    server = Server(used_var)
    server.ensure()
    place = server.place()
    assert place is not None
    server.stop()
    (place.data / "PG_VERSION").write_text("12\n")
    with pytest.raises(ImproperlyConfigured, match="was written by PostgreSQL 12"):
        server.ensure()
    assert server.address() is None


def run_as_nobody(action: Callable[[], None]) -> int | None:
    def act() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        action()

    process = multiprocessing.get_context("fork").Process(target=act)
    process.start()
    process.join(60)
    return process.exitcode


@pytest.mark.skipif(not is_root, reason="this user is a normal one: the other tests show it")
def test_normal_user_runs_the_server_as_themselves(var: Path) -> None:
    nobody = Owner.current()
    spec = files.find_programs(nobody, var)
    if not spec.is_relative_to(ROOT):
        pytest.skip("a normal user cannot read this clone")
    var.mkdir()
    os.chown(var, 65534, 65534)

    def action() -> None:
        server = Server(var)
        assert not Owner.current().lent
        assert query(server, "SELECT 1") == (1,)

    assert run_as_nobody(action) == 0
    assert (var / "postgres").stat().st_uid == 65534
    assert (var / "postgres-password").stat().st_uid == 65534


@pytest.mark.skipif(not is_root, reason="only root lends the server to another user")
def test_root_lends_the_server_and_loosens_nothing(tmp_path: Path) -> None:
    closed = tmp_path / "home"
    closed.mkdir(mode=0o700)
    var = closed / "var"
    var.mkdir(mode=0o700)
    server = Server(var)
    homes = [files.outside(var)]
    try:
        assert query(server, "SELECT 1") == (1,)
        place = server.place()
        assert place is not None
        assert place.data == homes[0] / "postgres"
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700
        assert stat.S_IMODE(var.stat().st_mode) == 0o700
        assert stat.S_IMODE(place.data.stat().st_mode) == 0o700
        assert Path(f"/proc/{postmaster(server)}").stat().st_uid == Owner.current().uid != 0
        server.stop()
        shutil.rmtree(var)
        var.mkdir(mode=0o700)
        homes.append(files.outside(var))
        assert homes[0] != homes[1]
        assert query(server, "SELECT 1") == (1,)
    finally:
        server.stop()
        for home in homes:
            shutil.rmtree(home, ignore_errors=True)


def test_lost_password_is_told(used_var: Path) -> None:
    server = Server(used_var)
    server.ensure()
    server.stop()
    (used_var / "postgres-password").unlink()
    with pytest.raises(ImproperlyConfigured, match="does not let Conductor in"):
        server.ensure()


def test_unreadable_programs_are_copied_to_where_they_run(
    var: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_root:
        pytest.skip("only root's server runs as a user who may not reach the clone")
    owner = Owner.current()
    original = files.find_programs(owner, var).parent
    wheel = tmp_path / original.parent.name
    files.copy_programs(original, tmp_path / "site")
    (tmp_path / "site" / wheel.name).rename(wheel)
    (tmp_path / "site" / (wheel.name + ".libs")).rename(tmp_path / (wheel.name + ".libs"))
    var.mkdir(mode=0o711)
    monkeypatch.setattr(
        files.importlib.util, "find_spec",
        lambda name: type("Spec", (), {"submodule_search_locations": [str(wheel)]}),
    )  # fmt: skip

    assert not owner.can_run(wheel / original.name / "bin" / "postgres")
    expected = var / "programs" / wheel.name / original.name / "bin"
    assert files.find_programs(owner, var) == expected
    assert query(Server(var), "SELECT 1") == (1,)


def test_status_names_its_parts(used_var: Path) -> None:
    address = Server(used_var).ensure()
    output = manage(used_var, "embedded", "status").communicate(timeout=60)[0]
    assert output.splitlines() == [
        "running",
        f"data    {used_var / 'postgres'}",
        f"log     {used_var / 'postgres.log'}",
        f"socket  {address.socket_dir}",
        f"tcp     127.0.0.1:{address.port}",
    ]


def test_shell_of_the_database_opens(var: Path) -> None:
    command = manage(var, "dbshell", "--", "-Atc", "SELECT current_database()")
    assert command.communicate(timeout=60)[0] == "conductor\n"
    started = time.monotonic()
    assert Server(var).stop() is True
    assert time.monotonic() - started < 10
