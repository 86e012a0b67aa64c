"""Where Terraform states can be kept: what an environment may say of it, and what the tool is told.

A location holds no credentials, ever: the tool takes them from its environment. It is settled when a
resource is first brought about, and stays: an environment's later change moves new resources only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from provisioning.drivers.base import StateLocation
from provisioning.drivers.external_state import StateAccess
from provisioning.drivers.secrets import SECRET_NAME
from provisioning.exceptions import ConductorError

MANAGED, HTTP, LOCAL, CUSTOM = "managed", "http", "local", "custom"
OVERRIDE_FILE = "zzzz_conductor_override.tf.json"
"""Override files are merged in the order of their names: this one has the last word."""
RESOURCE_ID = "${resource_id}"
"""What stands for the resource's id in the settings of a custom backend."""
LONGEST_TEXT, LONGEST_PLACE = 250, 500
_ANY_ID = "00000000-0000-0000-0000-000000000000"

_PASSWORD_IN_TEXT = re.compile(r"\b(ssl)?password\s*=", re.IGNORECASE)
_BACKEND_NAME = re.compile(r"[a-z][a-z0-9_]*")


class StateBackendError(ConductorError):
    """Refuse an environment's state backend, saying what is wrong with it."""


@dataclass(frozen=True, slots=True)
class _Type:
    """Describe a type: its settings, and which of Terraform's it tells where a resource's state is.

    `place` is `{setting: text}` and `where` a text for people; in both, `{id}` is the resource's id,
    `{hex}` the same without dashes and `{name}` a setting. Settings whose name ends in `_prefix` are
    Conductor's own, and not told to Terraform.
    """

    required: Mapping[str, type]
    optional: Mapping[str, type]
    place: Mapping[str, str]
    where: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    credentials: str = ""


TYPES: Mapping[str, _Type] = {
    MANAGED: _Type({}, {}, {}, "resources/{id}"),
    HTTP: _Type({}, {}, {}, "resources/{id}"),
    LOCAL: _Type(
        {"path": str},
        {},
        # Each in a folder of its own: others are not the business of whoever writes in it.
        {"path": "{path}/{id}/terraform.tfstate"},
        "{path}/{id}/terraform.tfstate",
    ),
    "s3": _Type(
        {"bucket": str, "region": str},
        {
            "key_prefix": str, "endpoints": dict, "encrypt": bool, "kms_key_id": str, "acl": str,
            "profile": str, "assume_role": dict, "dynamodb_table": str, "use_lockfile": bool,
            "use_path_style": bool, "use_fips_endpoint": bool, "use_dualstack_endpoint": bool,
            "skip_credentials_validation": bool, "skip_metadata_api_check": bool,
            "skip_region_validation": bool, "skip_requesting_account_id": bool,
            "skip_s3_checksum": bool,
        },
        {"key": "{key_prefix}/{id}.tfstate"},
        "s3://{bucket}/{key_prefix}/{id}.tfstate",
        {"key_prefix": "resources", "use_lockfile": True},
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ),
    "azurerm": _Type(
        {"storage_account_name": str, "container_name": str},
        {
            "key_prefix": str, "resource_group_name": str, "subscription_id": str, "tenant_id": str,
            "client_id": str, "environment": str, "metadata_host": str, "use_azuread_auth": bool,
            "use_oidc": bool, "use_msi": bool, "use_cli": bool, "snapshot": bool,
        },
        {"key": "{key_prefix}/{id}.tfstate"},
        "https://{storage_account_name}.blob.core.windows.net/{container_name}/{key_prefix}/{id}.tfstate",
        {"key_prefix": "resources"},
        "ARM_CLIENT_SECRET, ARM_ACCESS_KEY or ARM_SAS_TOKEN",
    ),
    "gcs": _Type(
        {"bucket": str},
        {
            "key_prefix": str, "kms_encryption_key": str, "impersonate_service_account": str,
            "storage_custom_endpoint": str,
        },
        {"prefix": "{key_prefix}/{id}"},
        "gs://{bucket}/{key_prefix}/{id}/default.tfstate",
        {"key_prefix": "resources"},
        "GOOGLE_CREDENTIALS",
    ),
    "pg": _Type(
        {},
        {"conn_str": str, "schema_prefix": str},
        {"schema_name": "{schema_prefix}_{hex}"},
        "PostgreSQL schema {schema_prefix}_{hex}",
        {"schema_prefix": "conductor"},
        "PG_CONN_STR or PGPASSWORD",
    ),
    "remote": _Type(
        {"organization": str},
        {"hostname": str, "workspace_prefix": str},
        {"workspaces": "{workspace_prefix}{id}"},
        "{hostname}/{organization}/{workspace_prefix}{id}",
        {"hostname": "app.terraform.io", "workspace_prefix": "conductor-"},
        "TF_TOKEN_app_terraform_io",
    ),
    CUSTOM: _Type({"backend": str, "config": dict}, {}, {}, "{backend}: {id}"),
}  # fmt: skip


def check_backend(backend: Any) -> None:
    """Raise StateBackendError unless this says how an environment's states are kept."""
    problems = list(_problems(backend))
    if not problems and len(locate(backend, _ANY_ID).location) > LONGEST_PLACE:
        problems = ["Its settings are too long."]
    if problems:
        raise StateBackendError(" ".join(problems))


def locate(backend: Mapping[str, Any], resource_id: str) -> StateLocation:
    """Return where the state of a new resource is kept; the settings have been checked."""
    kind = str(backend["type"])
    known = TYPES[kind]
    settings = {**known.defaults, **{name: backend[name] for name in backend if name != "type"}}
    words = {**settings, "id": resource_id, "hex": resource_id.replace("-", "")}
    where = known.where.format_map(words)
    if kind == CUSTOM:
        config = _with_id(settings["config"], resource_id)
        return StateLocation(kind, where, {"backend": settings["backend"], "config": config})
    told: dict[str, Any] = {
        name: value for name, value in settings.items() if not name.endswith("_prefix")
    }
    told |= {name: text.format_map(words) for name, text in known.place.items()}
    if kind == "remote":
        told["workspaces"] = {"name": told["workspaces"]}
    return StateLocation(kind, where, {"config": told} if told else {})


def is_external(location: StateLocation | None) -> bool:
    """Tell whether the tool itself reaches the state, instead of Conductor's shipping it."""
    return location is not None and location.backend not in ("", MANAGED)


def override(location: StateLocation, access: StateAccess | None) -> bytes:
    """Return the module's override file by which the tool keeps its state at an external location.

    `access` is where Conductor serves the state, for the type `http`; it gives no secret away.
    """
    config = dict(location.metadata.get("config") or {})
    backend = str(location.metadata.get("backend") or location.backend)
    if location.backend == HTTP:
        assert access is not None  # noqa: S101 - the run gives it
        config = {
            "address": access.address,
            "lock_address": access.address,
            "unlock_address": access.address,
            "lock_method": "LOCK",
            "unlock_method": "UNLOCK",
            "update_method": "POST",
        }
    return json.dumps({"terraform": {"backend": {backend: _literal(config)}}}).encode()


def override_managed() -> bytes:
    """Return the module's override file by which the tool keeps its state in the work folder."""
    return json.dumps({"terraform": {"backend": {LOCAL: {}}}}).encode()


def is_managed(noted: bytes) -> bool:
    """Tell whether `init` has noted the backend of `override_managed`, and no other, for a module."""
    backend = json.loads(noted).get("backend") or {}
    return backend.get("type") == LOCAL and not any((backend.get("config") or {}).values())


def _problems(backend: Any) -> Iterator[str]:
    if not isinstance(backend, dict) or backend.get("type") not in TYPES:
        yield f'It must be an object such as {{"type": "s3"}}, with a type of {", ".join(TYPES)}.'
        return
    kind = backend["type"]
    known = TYPES[kind]
    settings = {name: value for name, value in backend.items() if name != "type"}
    allowed = {**known.required, **known.optional}
    for name in known.required:
        if not settings.get(name):
            yield f"{kind} needs {name}."
    for name, value in settings.items():
        if name not in allowed:
            yield _unknown(kind, name, sorted(allowed))
        elif type(value) is not allowed[name]:
            yield f"{name} must be {_KINDS[allowed[name]]}."
        else:
            yield from _secrets(kind, name, value)
    if kind == LOCAL and not str(settings.get("path", "/")).startswith("/"):
        yield "path must be absolute: a folder that every worker reaches under that name."
    prefix = str(settings.get("schema_prefix", ""))
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,29}|", prefix):
        yield "schema_prefix must have 1 to 30 of a-z, 0-9 and _, and not begin with a digit."
    if kind == CUSTOM:
        yield from _custom_problems(settings)


_KINDS = {str: "text", bool: "true or false", dict: "an object"}


def _unknown(kind: str, name: str, allowed: list[str]) -> str:
    if SECRET_NAME.search(name):
        return _credential(kind, name)
    there = f"There are {', '.join(allowed)}." if allowed else "It takes none."
    return f"{kind} has no setting {name}. {there}"


def _credential(kind: str, name: str) -> str:
    hint = TYPES[kind].credentials
    such = f", such as {hint}" if hint else ""
    return (
        f"{name} holds a credential, and those are not kept in settings: set what Terraform reads from "
        f"its environment{such}, with `manage.py credential set`."
    )


def _secrets(kind: str, path: str, value: Any) -> Iterator[str]:
    """Refuse what gives a credential away inside of a known setting."""
    if isinstance(value, dict):
        for name, item in value.items():
            if SECRET_NAME.search(name):
                yield _credential(kind, f"{path}.{name}")
            else:
                yield from _secrets(kind, f"{path}.{name}", item)
    elif isinstance(value, list):
        for item in value:
            yield from _secrets(kind, path, item)
    elif isinstance(value, str):
        if len(value) > LONGEST_TEXT:
            yield f"{path} is too long: it has {LONGEST_TEXT} characters at most."
        if _has_password(value):
            yield _credential(kind, path)


def _has_password(text: str) -> bool:
    try:
        return bool(urlsplit(text).password) or bool(_PASSWORD_IN_TEXT.search(text))
    except ValueError:
        return False


def _custom_problems(settings: Mapping[str, Any]) -> Iterator[str]:
    backend, config = settings.get("backend"), settings.get("config")
    if isinstance(backend, str) and not _BACKEND_NAME.fullmatch(backend):
        yield "backend must be the name of one of Terraform's backends, such as consul."
    if backend == LOCAL:
        yield "backend local is a type of its own."
    if isinstance(config, dict) and not any(RESOURCE_ID in text for text in _texts(config)):
        yield f"config must have {RESOURCE_ID} somewhere: else all resources would share one state."


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value


def _with_id(value: Any, resource_id: str) -> Any:
    return _mapped(value, lambda text: text.replace(RESOURCE_ID, resource_id))


def _literal(value: Any) -> Any:
    """Escape what Terraform would expand."""
    return _mapped(value, lambda text: text.replace("${", "$${").replace("%{", "%%{"))


def _mapped(value: Any, change: Any) -> Any:
    if isinstance(value, dict):
        return {name: _mapped(item, change) for name, item in value.items()}
    if isinstance(value, list):
        return [_mapped(item, change) for item in value]
    return change(value) if isinstance(value, str) else value
