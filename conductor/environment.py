"""Read settings from environment variables, and stop the start with a sentence if one is wrong."""

from __future__ import annotations

import base64
import binascii
import difflib
import os
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off", ""})
# A server that has vanished without a word would else be waited for up to two hours (tcp(7)).
POSTGRES_PATIENCE = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""How long a connection may be dead before it ends: seconds, the last one milliseconds."""
POSTGRES_SCHEMES = ("postgres", "postgresql", "psql", "pgsql")

_env = environ.Env()
_known: set[str] = set()


def text(name: str, default: str = "") -> str:
    """Return the variable, or the default if it is unset or empty."""
    _known.add(name)
    return _env.str(name, default="") or default


def secret(name: str, *, minimum: int) -> str:
    """Return a secret, or "" if it is unset; one that could be guessed is refused."""
    value = text(name).strip()
    if value and len(value) < minimum:
        raise ImproperlyConfigured(f"{name} must have at least {minimum} characters.")
    return value


def words(name: str, default: Iterable[str] = ()) -> list[str]:
    """Return a comma-separated variable as a list without blanks."""
    _known.add(name)
    return [word.strip() for word in _env.list(name, default=[]) if word.strip()] or list(default)


def boolean(name: str, default: bool) -> bool:
    """Return a yes-or-no variable; anything that is neither is refused."""
    value = text(name).strip().lower()
    if name not in os.environ:
        return default
    if value in TRUE:
        return True
    if value in FALSE:
        return False
    raise ImproperlyConfigured(
        f"{name} must be one of true, false, yes, no, on, off, 1 or 0, and is {value!r}."
    )


def integer(name: str, default: int, *, minimum: int, maximum: int) -> int:
    """Return a whole number within its bounds (both included)."""
    value = text(name, str(default))
    try:
        number = int(value)
    except ValueError:
        raise ImproperlyConfigured(f"{name} must be a whole number, and is {value!r}.") from None
    if not minimum <= number <= maximum:
        raise ImproperlyConfigured(
            f"{name} must be between {minimum} and {maximum}, and is {number}."
        )
    return number


def postgres_url(name: str) -> str:
    """Return the address of a PostgreSQL database, or "" if the variable is unset."""
    value = text(name)
    if not value:
        return ""
    example = "postgres://user:password@host:5432/database"
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise ImproperlyConfigured(
            f"{name} cannot be read ({error}); it looks like {example}, "
            "with special characters in the password written as %XX."
        ) from None
    if parts.scheme not in POSTGRES_SCHEMES:
        raise ImproperlyConfigured(
            f"{name} must be the address of a PostgreSQL database such as {example}; "
            f"the scheme {parts.scheme!r} is not supported."
        )
    if port == 0 or not parts.path.strip("/"):
        missing = "a port above 0" if port == 0 else "the name of a database after the host"
        raise ImproperlyConfigured(f"{name} needs {missing}; it looks like {example}.")
    return value


def http_url(name: str, default: str) -> str:
    """Return a web address without a slash at its end."""
    value = text(name, default).rstrip("/")
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise ImproperlyConfigured(
            f"{name} must be an address such as https://conductor.example.org, and is {value!r}."
        )
    return value


def database(name: str) -> dict[str, Any]:
    """Return the variable's PostgreSQL address as one entry of Django's DATABASES.

    Its query holds libpq's parameters, which go before POSTGRES_PATIENCE.
    """
    found = dict(environ.Env.db_url_config(postgres_url(name)))
    return found | {"OPTIONS": POSTGRES_PATIENCE | found.get("OPTIONS", {})}


def fernet_keys(name: str) -> list[str]:
    """Return a comma-separated list of Fernet keys; the first encrypts, all decrypt."""
    keys = words(name)
    for position, key in enumerate(keys, start=1):
        try:
            size = len(base64.urlsafe_b64decode(key))
        except (binascii.Error, ValueError):
            size = 0
        if size != 32:
            raise ImproperlyConfigured(
                f"Key {position} of {name} is not a Fernet key (32 bytes in URL-safe base64). "
                "Make one with: python -c 'from cryptography.fernet import Fernet; "
                "print(Fernet.generate_key().decode())'"
            )
    return keys


def leave(*names: str) -> None:
    """Accept variables that are read elsewhere, by drivers that know no settings."""
    _known.update(names)


def unknown(prefix: str) -> list[tuple[str, str]]:
    """Return the variables with this prefix that nothing reads, each with the likely name or ""."""
    names = sorted(name for name in os.environ if name.startswith(prefix) and name not in _known)
    return [
        (name, next(iter(difflib.get_close_matches(name, _known, n=1, cutoff=0.75)), ""))
        for name in names
    ]
