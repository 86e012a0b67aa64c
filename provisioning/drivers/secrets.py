"""Get the secrets that params refer to, in the worker that needs them.

`env:NAME` is the worker's variable CONDUCTOR_SECRET_NAME, `file:PATH` a file below the worker's
CONDUCTOR_SECRETS_DIR: a Score file reaches what an operator put there, and nothing else of the
worker. Other packages add schemes with the entry-point group `conductor.secrets`: a callable that
takes what follows the colon and returns the secret as text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import unquote, urlsplit

from provisioning.drivers.base import DriverError
from provisioning.score.secretref import KEY, is_secretref, malformed
from provisioning.score.workload import Json

ENTRY_POINT_GROUP = "conductor.secrets"
VARIABLE_PREFIX = "CONDUCTOR_SECRET_"
FOLDER_VARIABLE = "CONDUCTOR_SECRETS_DIR"
MOST_BYTES = 1_000_000
SECRET_NAME = re.compile(
    r"pass(word|wd|phrase)|secret|token|credential|private_?key|access_?key|encryption_?key"
    r"|account_?key|(^|_)sas(_|$)|api_?key",
    re.IGNORECASE,
)
"""What settings and variables are called that hold a secret."""
_PASSWORD = re.compile(r"\b(?:ssl)?password\s*=\s*('(?:[^'\\]|\\.)*'|[^\s'&]+)", re.IGNORECASE)
_SWITCHES = frozenset({"true", "false", "yes", "no", "on", "off", "0", "1"})


class SecretError(DriverError):
    """Say which referenced secret cannot be had, never its value; trying again cannot help."""

    def __init__(self, reference: str, reason: str) -> None:
        super().__init__(f"The secret {reference} cannot be had: {reason}.", permanent=True)


def secrets_among(variables: Mapping[str, str]) -> Iterator[str]:
    """Yield the secrets in an environment: by what the variables are called, and in addresses.

    What only switches something on or off is none, whatever its variable is called.
    """
    for name, value in variables.items():
        if SECRET_NAME.search(name):
            if value.strip().lower() not in _SWITCHES:
                yield value
            continue
        # Tools take a proxy without its scheme, too.
        bare = name.lower().endswith("_proxy") and "//" not in value
        try:
            password = urlsplit(f"//{value}" if bare else value).password
        except ValueError:
            password = None
        for each in (password, *(found[1].strip("'") for found in _PASSWORD.finditer(value))):
            if each:
                yield from dict.fromkeys((each, unquote(each)))


def resolve_secrets(params: Mapping[str, Json], environment: Mapping[str, str]) -> dict[str, Json]:
    """Put the secrets in place of all references to them; raise SecretError."""
    return {name: _resolved(value, environment) for name, value in params.items()}


def _resolved(value: Json, environment: Mapping[str, str]) -> Json:
    if is_secretref(value):
        if wrong := malformed(value):
            raise DriverError(wrong, permanent=True)
        return _secret(value[KEY], environment)
    if isinstance(value, Mapping):
        return {key: _resolved(item, environment) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_resolved(item, environment) for item in value]
    return value


def _secret(reference: str, environment: Mapping[str, str]) -> str:
    scheme, _, place = reference.partition(":")
    if scheme == "env":
        return _variable(reference, place, environment)
    if scheme == "file":
        return _file(reference, place, environment)
    return _from_vault(reference, scheme, place)


def _variable(reference: str, name: str, environment: Mapping[str, str]) -> str:
    value = environment.get(VARIABLE_PREFIX + name)
    if not value:
        raise SecretError(reference, f"the worker has no variable {VARIABLE_PREFIX}{name}")
    return value


def _file(reference: str, path: str, environment: Mapping[str, str]) -> str:
    folder = environment.get(FOLDER_VARIABLE)
    if not folder:
        raise SecretError(reference, f"the worker's {FOLDER_VARIABLE} is not set")
    root = Path(folder).resolve()
    try:
        file = (root / path).resolve()
    except RuntimeError:  # what Python 3.11 and 3.12 raise for links that go round
        raise SecretError(reference, "its links go round in a circle") from None
    if not file.is_relative_to(root):
        raise SecretError(reference, f"it is not below the worker's {FOLDER_VARIABLE}")
    try:
        with file.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
        text = content.decode().removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise SecretError(reference, (error.strerror or "it cannot be read").lower()) from error
    except UnicodeDecodeError:
        # Without the cause, which holds the content.
        raise SecretError(reference, "it is not UTF-8 text") from None
    if not text or len(content) > MOST_BYTES:
        raise SecretError(reference, "it is empty" if not text else "it is too large")
    return text


def _from_vault(reference: str, scheme: str, place: str) -> str:
    for point in entry_points(group=ENTRY_POINT_GROUP, name=scheme):
        get: Callable[[str], object] = point.load()
        try:
            value = get(place)
        except Exception as error:
            # Its message may hold anything, so only its kind is told.
            raise SecretError(reference, f"{scheme} failed ({type(error).__name__})") from None
        if not isinstance(value, str) or not value:
            raise SecretError(reference, f"{scheme} has no such text")
        return value
    known = sorted({"env", "file", *(each.name for each in entry_points(group=ENTRY_POINT_GROUP))})
    raise SecretError(reference, f"{scheme} is none of {', '.join(known)}")
