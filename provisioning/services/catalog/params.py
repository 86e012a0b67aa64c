"""Checks params that no Score file has given against a template version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from jsonschema import Draft202012Validator

from provisioning.models import ResourceTemplateVersion
from provisioning.planning.references import has_placeholder
from provisioning.score.secretref import secretrefs


def param_problems(
    params: Mapping[str, Any],
    version: ResourceTemplateVersion,
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[str]:
    """Walk what is wrong with the params of a resource that is of no application.

    `defaults` are the environment's, which complete them.
    """
    schema = version.params_schema
    properties = schema.get("properties", {})
    for name, value in sorted(params.items()):
        secret = next(secretrefs(value, ()), None) is not None
        wanted = bool(properties.get(name, {}).get("writeOnly"))
        if has_placeholder(value):
            yield f"`{name}` refers to a resource; no application stands behind it, so write the value."
        if wanted and not secret:
            yield f"`{name}` is a secret: refer to it with a secretref."
        if secret and not wanted:
            yield f"`{name}` is no secret of {version.template}, and would not be kept as one."
    for error in sorted(
        Draft202012Validator(schema).iter_errors({**defaults, **params}),
        key=lambda each: each.json_path,
    ):
        named = str(error.absolute_path[0]) if error.absolute_path else ""
        if not properties.get(named, {}).get("writeOnly"):  # its value is never told
            place = error.json_path.removeprefix("$").removeprefix(".")
            yield f"`{place}`: {error.message}" if place else error.message
