"""A driver that creates a database and its roles on a PostgreSQL server.

The server is named by the template's `config.admin_url`, else by CONDUCTOR_POSTGRES_ADMIN_URL; the
workload reaches it at `config.host` and `config.port` if those are set. Params: `extensions`
(a list) and `connection_limit`. A password is generated once and kept for ever after.

A template that `uses` its consumers gives each a login of its own, and nobody the owner's; without,
all log in as the owner.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from provisioning.drivers.base import (
    Consumer,
    DriverError,
    DriverInput,
    DriverResult,
    Output,
    Run,
    StateLocation,
    StoppedError,
    TemplateInterface,
)
from provisioning.drivers.postgres.roles import (
    Server,
    connected,
    drop_role,
    ensure_login,
    ensure_owner,
    other_logins,
    safe_name,
)

ADMIN_URL_VARIABLE = "CONDUCTOR_POSTGRES_ADMIN_URL"
_LOCK_SPACE = 0x434E4454  # any fixed number: advisory locks of this driver

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
            "description": "How many connections each role may hold; -1 means no limit.",
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
_SECRET = frozenset({"password", "url"})


class PostgresDriver:
    """Create a database and its roles."""

    name = "postgres"
    label = "PostgreSQL database"

    def tool(self) -> None:
        """Need no tool."""

    def describe(self, content: Path, config: Mapping[str, Any]) -> TemplateInterface:
        """Answer Score's standard outputs of a `postgres` resource."""
        return TemplateInterface(dict(_PARAMS_SCHEMA), _OUTPUTS)

    def ensure(self, resource: DriverInput, run: Run) -> DriverResult:
        """Create or correct the database and its roles; those of former consumers are dropped."""
        name, limit = _name(resource), int(resource.params.get("connection_limit", -1))
        each_its_own = resource.consumers is not None
        password = None if each_its_own else _password(resource.previous_outputs, run)
        with _connected(resource, run) as server:
            ensure_owner(server, name, password=password, connections=limit)
            _stop_if_told(run)
            _ensure_database(server, name, resource)
            logins = {_login_name(resource, each): each for each in resource.consumers or ()}
            _drop_logins(server, resource, run, wanted=logins, heir=name)
            _ensure_extensions(server, name, resource.params.get("extensions") or ())
            outputs = _place(resource, server, name)
            if password is not None:
                outputs |= _credentials(outputs, name, password, run)
            own = {}
            for login, consumer in logins.items():
                _stop_if_told(run)
                password = _password(consumer.previous_outputs, run)
                ensure_login(
                    server,
                    login,
                    owner=name,
                    database=name,
                    mark=f"{_mark(resource)} {consumer.id}",
                    password=password,
                    connections=limit,
                )
                own[consumer.id] = _credentials(outputs, login, password, run)
        run.log(f"The database {name} and its {len(own) + 1} roles are ready.\n")
        place = StateLocation("postgres", f"{outputs['host']}:{outputs['port']}/{name}")
        return DriverResult(outputs, _SECRET, place, own)

    def destroy(self, resource: DriverInput, run: Run) -> None:
        """End the database's connections and drop it and its roles, if they are there."""
        name = _name(resource)
        with _connected(resource, run) as server:
            drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
            server.connection.execute(drop.format(sql.Identifier(name)))
            _drop_logins(server, resource, run, wanted=(), heir="")
            drop_role(server, name)
        run.log(f"The database {name} and its roles are gone.\n")


def database_name(resource: DriverInput) -> str:
    """Return the name of a resource's database: readable, unique by the resource's id, safe."""
    return safe_name(resource.name, resource.resource_id)


def _name(resource: DriverInput) -> str:
    """Return the name of the database and of its owner."""
    return str(resource.previous_outputs.get("database") or database_name(resource))


def _login_name(resource: DriverInput, consumer: Consumer) -> str:
    return safe_name(consumer.name, f"{resource.resource_id} {consumer.id}")


def _mark(resource: DriverInput) -> str:
    """Return the comment by which a database is known as ours, and with which that of a login begins."""
    return f"conductor {resource.resource_id}"


def _password(previous: Mapping[str, Any], run: Run) -> str:
    password = str(previous.get("password") or secrets.token_urlsafe(24))
    run.mask(password)
    return password


def _drop_logins(
    server: Server, resource: DriverInput, run: Run, *, wanted: Collection[str], heir: str
) -> None:
    """Drop the logins of those who do not use the database any more."""
    for login in other_logins(server, f"{_mark(resource)} ", wanted):
        _stop_if_told(run)
        drop_role(server, login, heir=heir)
        run.log(f"The role {login} is gone, and its sessions have ended.\n")


@contextmanager
def _connected(resource: DriverInput, run: Run) -> Iterator[Server]:
    """Yield the server, to which the connection holds the resource's lock."""
    url = str(resource.config.get("admin_url") or run.environment.get(ADMIN_URL_VARIABLE) or "")
    if not url:
        raise DriverError(
            "No PostgreSQL server is named: set `config.admin_url` in the template or "
            f"{ADMIN_URL_VARIABLE} for the worker.",
            permanent=True,
        )
    password = _address(url).get("password")
    if password:
        run.mask(str(password))
    server = f"{_address(url).get('host', 'localhost')}:{_address(url).get('port', 5432)}"
    _stop_if_told(run)
    try:
        with connected(url) as connection:
            lock = int.from_bytes(hashlib.sha256(resource.resource_id.encode()).digest()[:4], "big")
            connection.execute("SELECT pg_advisory_lock(%s, %s)", (_LOCK_SPACE, lock - 2**31))
            yield Server(url, connection)
    except psycopg.errors.InsufficientPrivilege as error:
        message = f"The administrator's role on {server} may not do this: {_first_line(error)}"
        raise DriverError(message, permanent=True) from error
    except psycopg.OperationalError as error:
        message = f"The PostgreSQL server {server} could not be used: {_first_line(error)}"
        raise DriverError(message, permanent=False) from error
    except psycopg.Error as error:
        message = f"The PostgreSQL server {server} refused: {_first_line(error)}"
        raise DriverError(message, permanent=True) from error


def _ensure_database(server: Server, name: str, resource: DriverInput) -> None:
    found = server.connection.execute(
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", (name,)
    ).fetchone()
    database = sql.Identifier(name)
    mark = _mark(resource)
    if found is None:
        server.connection.execute(sql.SQL("CREATE DATABASE {}").format(database))
    elif found[0] not in (None, mark):
        message = f"The database {name} belongs to something else ({found[0]})."
        raise DriverError(message, permanent=True)
    for statement in (
        sql.SQL("COMMENT ON DATABASE {} IS {}").format(database, sql.Literal(mark)),
        sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database),
        sql.SQL("GRANT {} TO CURRENT_USER").format(database),
        sql.SQL("ALTER DATABASE {} OWNER TO {}").format(database, database),
    ):
        server.connection.execute(statement)


def _ensure_extensions(server: Server, name: str, extensions: Any) -> None:
    if not extensions:
        return
    try:
        with server.inside(name) as connection:
            for extension in extensions:
                create = sql.SQL("CREATE EXTENSION IF NOT EXISTS {}")
                connection.execute(create.format(sql.Identifier(extension)))
    except psycopg.errors.FeatureNotSupported as error:
        message = f"The server does not offer an extension: {_first_line(error)}"
        raise DriverError(message, permanent=True) from error
    except psycopg.Error as error:
        message = f"An extension could not be created: {_first_line(error)}"
        raise DriverError(message, permanent=False) from error


def _place(resource: DriverInput, server: Server, name: str) -> dict[str, str | int]:
    """Return the outputs that tell where the database is."""
    told = _address(server.url)
    return {
        "host": str(resource.config.get("host") or told.get("host") or "localhost"),
        "port": int(resource.config.get("port") or told.get("port") or 5432),
        "name": name,
        "database": name,
    }


def _credentials(
    place: Mapping[str, str | int], role: str, password: str, run: Run
) -> dict[str, str]:
    """Return the outputs with which one logs in."""
    address = f"{place['host']}:{place['port']}/{place['database']}"
    url = f"postgresql://{role}:{password}@{address}"
    run.mask(url)
    return {"username": role, "password": password, "url": url}


def _address(url: str) -> dict[str, Any]:
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
