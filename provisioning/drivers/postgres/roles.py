"""Roles on a PostgreSQL server: the owner of a database, and one login for each who uses it.

A login acts as the owner from the start of each session, so what it makes is the owner's, and all
who use the database can use it. Each statement may be repeated; nothing that exists is lost.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, TypeAlias

import psycopg
from psycopg import sql

from provisioning.drivers.base import DriverError

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

LONGEST_NAME = 63
DIGEST_LENGTH = 10
SESSION_END_MILLISECONDS = 5000


@dataclass(frozen=True, slots=True)
class Server:
    """A server to an administrator: a connection to it in which each statement is committed."""

    url: str
    connection: Connection

    def inside(self, database: str) -> Connection:
        """Connect to one of its databases; the caller closes the connection."""
        return connected(self.url, database)


def connected(url: str, database: str | None = None) -> Connection:
    """Connect to a server, or to a database of it; no statement waits long for a lock."""
    connection = psycopg.connect(url, dbname=database, autocommit=True, connect_timeout=10)
    connection.execute("SET lock_timeout = '60s'")
    return connection


def safe_name(words: str, unique: str) -> str:
    """Return a name that needs no quotes: readable by `words`, the same for the same `unique`."""
    digest = hashlib.sha256(unique.encode()).hexdigest()[:DIGEST_LENGTH]
    label = re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")
    if not label[:1].isalpha():
        label = f"db_{label}"
    return f"{label[: LONGEST_NAME - DIGEST_LENGTH - 1]}_{digest}"


def ensure_owner(server: Server, owner: str, *, password: str | None, connections: int) -> None:
    """Create or correct the owner; without a password nobody can log in as the owner any more."""
    query = "SELECT 1 FROM pg_roles WHERE rolname = %s"
    found = server.connection.execute(query, (owner,)).fetchone()
    _write_role(server.connection, owner, found is not None, password, connections)
    if password is None:
        _end_sessions(server.connection, owner)


def ensure_login(
    server: Server,
    login: str,
    *,
    owner: str,
    database: str,
    mark: str,
    password: str,
    connections: int,
) -> None:
    """Create or correct a login that acts as the owner; `mark` tells whose it is."""
    connection = server.connection
    found = connection.execute(
        "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = %s", (login,)
    ).fetchone()
    if found is not None and found[0] != mark:
        raise DriverError(f"The role {login} belongs to something else ({found[0]}).", True)
    role, acts_as = sql.Identifier(login), sql.Identifier(owner)
    with connection.transaction():
        _write_role(connection, login, found is not None, password, connections)
        for statement in (
            sql.SQL("COMMENT ON ROLE {} IS {}").format(role, sql.Literal(mark)),
            sql.SQL("GRANT {} TO {}").format(acts_as, role),
            sql.SQL("ALTER ROLE {} IN DATABASE {} SET role TO {}").format(
                role, sql.Identifier(database), sql.Literal(owner)
            ),
        ):
            connection.execute(statement)


def other_logins(server: Server, mark: str, wanted: Collection[str]) -> list[str]:
    """Return the logins whose marks begin so, except for the wanted ones."""
    rows = server.connection.execute(
        "SELECT rolname FROM pg_roles"
        " WHERE starts_with(shobj_description(oid, 'pg_authid'), %s) ORDER BY rolname",
        (mark,),
    )
    return [name for (name,) in rows if name not in wanted]


def drop_role(server: Server, role: str, *, heir: str = "") -> None:
    """End a role's sessions and drop it, if it is there; what it owns is the heir's then, or gone."""
    connection = server.connection
    found = connection.execute("SELECT oid FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
    if found is None:
        return
    name = sql.Identifier(role)
    connection.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(name))
    _end_sessions(connection, role)
    connection.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(name))
    owning = connection.execute(
        "SELECT datname FROM pg_database WHERE oid IN (SELECT dbid FROM pg_shdepend"
        " WHERE refclassid = 'pg_authid'::regclass AND refobjid = %s)",
        found,
    ).fetchall()
    for (database,) in owning:
        with server.inside(database) as inside:
            if heir:
                reassign = sql.SQL("REASSIGN OWNED BY {} TO {}")
                inside.execute(reassign.format(name, sql.Identifier(heir)))
            inside.execute(sql.SQL("DROP OWNED BY {}").format(name))
    connection.execute(sql.SQL("DROP OWNED BY {}").format(name))
    connection.execute(sql.SQL("DROP ROLE {}").format(name))


def _write_role(
    connection: Connection, role: str, found: bool, password: str | None, connections: int
) -> None:
    """Create or alter a role that is no administrator; without a password it is no login."""
    hashed: str | None = None
    if password is not None:
        # Only the hash is sent, so the password is in no log of the server.
        hashed = connection.pgconn.encrypt_password(
            password.encode(), role.encode(), b"scram-sha-256"
        ).decode()
    # It may do nothing else by default, and only a superuser may say so again.
    statement = sql.SQL("{} ROLE {} WITH {} CONNECTION LIMIT {} PASSWORD {}")
    connection.execute(
        statement.format(
            sql.SQL("ALTER" if found else "CREATE"),
            sql.Identifier(role),
            sql.SQL("NOLOGIN" if hashed is None else "LOGIN"),
            sql.Literal(connections),
            sql.Literal(hashed),
        )
    )


def _end_sessions(connection: Connection, role: str) -> None:
    """End what runs as a role that nobody can log in as any more."""
    connection.execute(
        "SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity WHERE usename = %s",
        (SESSION_END_MILLISECONDS, role),
    )
    left = connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = %s", (role,)
    ).fetchone()
    if left and left[0]:
        raise DriverError(f"{left[0]} sessions of the role {role} do not end.", permanent=False)
