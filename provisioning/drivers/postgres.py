"""A driver that creates a database and a role of its own on a PostgreSQL server.

The server is named by the template's `config.admin_url`, else by CONDUCTOR_POSTGRES_ADMIN_URL; the
workload reaches it at `config.host` and `config.port` if those are set. Params: `extensions`
(a list) and `connection_limit`. The password is generated once and kept for ever after.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from provisioning.drivers.base import (
    DriverError,
    DriverInput,
    DriverResult,
    Output,
    Run,
    StateLocation,
    StoppedError,
    TemplateInterface,
)

ADMIN_URL_VARIABLE = "CONDUCTOR_POSTGRES_ADMIN_URL"
_LOCK_SPACE = 0x434E4454  # any fixed number: advisory locks of this driver
_LONGEST_NAME = 63

_PARAMS_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "extensions": {
            "type": "array",
            "items": {"type": "string", "pattern": "^[a-z][a-z0-9_-]*$"},
            "uniqueItems": True,
            "description": "Extensions to create in the database; the server must offer them.",
        },
        "connection_limit": {
            "type": "integer",
            "minimum": -1,
            "description": "How many connections the role may hold; -1 means no limit.",
        },
    },
    "additionalProperties": False,
}

_OUTPUTS = (
    Output("database", description="The database's name."),
    Output("host", description="The server's host name."),
    Output("name", description="The database's name."),
    Output("password", sensitive=True, description="The role's password."),
    Output("port", description="The server's port.", type="integer"),
    Output("url", sensitive=True, description="A connection URL with the password."),
    Output("username", description="The role's name."),
)


class PostgresDriver:
    """Create a database and its role."""

    name = "postgres"
    label = "PostgreSQL database"

    def tool(self) -> None:
        """Need no tool."""

    def describe(self, content: Path, config: Mapping[str, Any]) -> TemplateInterface:
        """Answer Score's standard outputs of a `postgres` resource."""
        return TemplateInterface(dict(_PARAMS_SCHEMA), _OUTPUTS)

    def ensure(self, resource: DriverInput, run: Run) -> DriverResult:
        """Create or correct the role and the database; nothing that exists is lost."""
        previous = resource.previous_outputs
        name = str(previous.get("database") or database_name(resource))
        role = str(previous.get("username") or name)
        password = str(previous.get("password") or secrets.token_urlsafe(24))
        run.mask(password)
        with _connected(resource, run) as (connection, url):
            limit = int(resource.params.get("connection_limit", -1))
            _ensure_role(connection, role, password, limit)
            _stop_if_told(run)
            _ensure_database(connection, name, role, resource)
        _ensure_extensions(url, name, resource.params.get("extensions") or ())
        run.log(f"The database {name} and its role {role} are ready.\n")
        outputs = _outputs(resource, url, name, role, password)
        run.mask(str(outputs["url"]))
        place = StateLocation("postgres", f"{outputs['host']}:{outputs['port']}/{name}")
        return DriverResult(outputs, frozenset({"password", "url"}), place)

    def destroy(self, resource: DriverInput, run: Run) -> None:
        """End the database's connections and drop it and its role, if they are there."""
        name = str(resource.previous_outputs.get("database") or database_name(resource))
        role = str(resource.previous_outputs.get("username") or name)
        with _connected(resource, run) as (connection, _):
            drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
            connection.execute(drop.format(sql.Identifier(name)))
            connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))
        run.log(f"The database {name} and its role {role} are gone.\n")


def database_name(resource: DriverInput) -> str:
    """Return the name of a resource's database: readable, unique by the resource's id, safe."""
    digest = hashlib.sha256(resource.resource_id.encode()).hexdigest()[:10]
    words = re.sub(r"[^a-z0-9]+", "_", resource.name.lower()).strip("_")
    if not words[:1].isalpha():
        words = f"db_{words}"
    return f"{words[: _LONGEST_NAME - len(digest) - 1]}_{digest}"


@contextmanager
def _connected(
    resource: DriverInput, run: Run
) -> Iterator[tuple[psycopg.Connection[tuple[Any, ...]], str]]:
    """Yield an autocommit connection that holds the resource's lock, and the server's URL."""
    url = str(resource.config.get("admin_url") or run.environment.get(ADMIN_URL_VARIABLE) or "")
    if not url:
        raise DriverError(
            "No PostgreSQL server is named: set `config.admin_url` in the template or "
            f"{ADMIN_URL_VARIABLE} for the worker.",
            permanent=True,
        )
    password = _server(url).get("password")
    if password:
        run.mask(str(password))
    server = f"{_server(url).get('host', 'localhost')}:{_server(url).get('port', 5432)}"
    _stop_if_told(run)
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
            lock = int.from_bytes(hashlib.sha256(resource.resource_id.encode()).digest()[:4], "big")
            connection.execute("SET lock_timeout = '60s'")
            connection.execute("SELECT pg_advisory_lock(%s, %s)", (_LOCK_SPACE, lock - 2**31))
            yield connection, url
    except psycopg.errors.InsufficientPrivilege as error:
        message = f"The administrator's role on {server} may not do this: {_first_line(error)}"
        raise DriverError(message, permanent=True) from error
    except psycopg.OperationalError as error:
        message = f"The PostgreSQL server {server} could not be used: {_first_line(error)}"
        raise DriverError(message, permanent=False) from error
    except psycopg.Error as error:
        message = f"The PostgreSQL server {server} refused: {_first_line(error)}"
        raise DriverError(message, permanent=True) from error


def _ensure_role(
    connection: psycopg.Connection[tuple[Any, ...]], role: str, password: str, limit: int
) -> None:
    found = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
    statement = sql.SQL(
        "{} ROLE {} WITH LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE CONNECTION LIMIT {} PASSWORD {}"
    )
    verb = sql.SQL("ALTER" if found else "CREATE")
    # Only the hash is sent, so the password is in no log of the server.
    hashed = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256")
    connection.execute(
        statement.format(
            verb, sql.Identifier(role), sql.Literal(limit), sql.Literal(hashed.decode())
        )
    )


def _ensure_database(
    connection: psycopg.Connection[tuple[Any, ...]], name: str, role: str, resource: DriverInput
) -> None:
    found = connection.execute(
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", (name,)
    ).fetchone()
    database = sql.Identifier(name)
    mark = f"conductor {resource.resource_id}"
    if found is None:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(database))
    elif found[0] not in (None, mark):
        message = f"The database {name} belongs to something else ({found[0]})."
        raise DriverError(message, permanent=True)
    for statement in (
        sql.SQL("COMMENT ON DATABASE {} IS {}").format(database, sql.Literal(mark)),
        sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database),
        sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(role)),
        sql.SQL("ALTER DATABASE {} OWNER TO {}").format(database, sql.Identifier(role)),
    ):
        connection.execute(statement)


def _ensure_extensions(url: str, name: str, extensions: Any) -> None:
    if not extensions:
        return
    try:
        with psycopg.connect(url, dbname=name, autocommit=True, connect_timeout=10) as connection:
            for extension in extensions:
                create = sql.SQL("CREATE EXTENSION IF NOT EXISTS {}")
                connection.execute(create.format(sql.Identifier(extension)))
    except psycopg.errors.FeatureNotSupported as error:
        message = f"The server does not offer an extension: {_first_line(error)}"
        raise DriverError(message, permanent=True) from error
    except psycopg.Error as error:
        message = f"An extension could not be created: {_first_line(error)}"
        raise DriverError(message, permanent=False) from error


def _outputs(
    resource: DriverInput, url: str, name: str, role: str, password: str
) -> dict[str, str | int]:
    server = _server(url)
    host = str(resource.config.get("host") or server.get("host") or "localhost")
    port = int(resource.config.get("port") or server.get("port") or 5432)
    return {
        "host": host,
        "port": port,
        "name": name,
        "database": name,
        "username": role,
        "password": password,
        "url": f"postgresql://{role}:{password}@{host}:{port}/{name}",
    }


def _server(url: str) -> dict[str, Any]:
    try:
        return conninfo_to_dict(url)
    except psycopg.Error as error:
        message = "The PostgreSQL administrator's URL cannot be read: write it like "
        raise DriverError(
            f"{message}postgresql://user:password@host:5432/postgres.", True
        ) from error


def _stop_if_told(run: Run) -> None:
    reason = run.should_stop()
    if reason is not None:
        raise StoppedError(f"The run was stopped ({reason}).", reason)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
