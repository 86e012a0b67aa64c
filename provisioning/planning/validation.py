"""What the matched templates say about a requirement: its params, and the outputs taken from it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from jsonschema import Draft202012Validator, ValidationError

from provisioning.planning.facts import VersionFacts
from provisioning.planning.references import has_placeholder
from provisioning.planning.requirements import Requirement, container_references
from provisioning.score.placeholders import references
from provisioning.score.secretref import is_secretref, secretrefs
from provisioning.score.workload import Problem, Workload, join_path

ABOUT_THE_WHOLE = frozenset({"additionalProperties", "unevaluatedProperties", "required"})
"""Keywords that a placeholder somewhere inside the value cannot excuse."""


class ParamChecks:
    """Check params against the schemas of one plan's template versions, each compiled once.

    With `later`, what one consumer leaves out may come from elsewhere, so the whole is asked for it.
    """

    def __init__(self, *, later: bool = False) -> None:
        self._later = later
        self._validators: dict[int, Draft202012Validator] = {}

    def problems(self, requirement: Requirement, version: VersionFacts) -> Iterator[Problem]:
        """Check a requirement's params: names, types, what is required, secrets as text."""
        later = self._later or bool(version.merge_rules)
        return _param_problems(requirement, version, self._validator(version), later=later)

    def merged_problems(
        self, requirement: Requirement, params: Mapping[str, Any], version: VersionFacts
    ) -> Iterator[Problem]:
        """Check what all consumers ask for together; it is told at one of the requirements."""
        merged = replace(requirement, params=params)
        among = "" if params == requirement.params else "With what the other consumers ask for: "
        for each in _param_problems(merged, version, self._validator(version)):
            yield requirement.problem(f"{among}{each.message}", below="params", hint=each.hint)

    def _validator(self, version: VersionFacts) -> Draft202012Validator:
        validator = self._validators.get(version.id)
        if validator is None:
            validator = Draft202012Validator(dict(version.params_schema))
            self._validators[version.id] = validator
        return validator


def _param_problems(
    requirement: Requirement,
    version: VersionFacts,
    validator: Draft202012Validator,
    *,
    later: bool = False,
) -> Iterator[Problem]:
    params = requirement.params or {}
    properties = version.params_schema.get("properties", {})
    template = f"the template {version.template} {version.version}"
    errors = [each for error in validator.iter_errors(params) for each in _if_not_null(error)]
    for error in sorted(errors, key=lambda error: error.json_path):
        # What one consumer leaves out another may give: the merged params are asked for it.
        left_out = error.validator == "required" and not error.absolute_path
        if left_out and later:
            continue
        if error.absolute_path and is_secretref(error.instance):
            continue  # its value is known to the worker only
        param = next(iter(error.absolute_path), None)
        if properties.get(param, {}).get("writeOnly"):
            continue  # a message would show the secret
        if error.validator in ABOUT_THE_WHOLE or not has_placeholder(error.instance):
            yield from _told(requirement, error, template, properties)
    for name, value in params.items():
        schema = properties.get(name, {})
        secret = next(secretrefs(value, ()), None) is not None
        if secret and not schema.get("writeOnly"):
            yield requirement.problem(
                f"`{name}` is no secret of {template}, and would not be kept as one.",
                below=join_path(("params", name)),
                hint="a secretref is for params that the template calls sensitive (writeOnly)",
            )
        if schema.get("writeOnly") and not secret and not has_placeholder(value):
            yield requirement.problem(
                f"`{name}` is a secret of {template} and must not stand in a file.",
                below=join_path(("params", name)),
                hint="take it from another resource's output: ${resources.….…}, or from the "
                "worker: {secretref: env:…}",
            )


def _if_not_null(error: ValidationError) -> Iterator[ValidationError]:
    """Say of a value that may be null as well what is wrong with it as it is."""
    branches: Any = error.validator_value
    if error.validator != "anyOf" or len(branches) != 2 or {"type": "null"} not in branches:
        yield error
        return
    for inner in error.context or ():
        if branches[inner.schema_path[0]] != {"type": "null"}:
            yield from _if_not_null(inner)


def output_problems(
    requirement: Requirement,
    aliases: Mapping[str, str],
    versions: Mapping[str, VersionFacts],
) -> Iterator[Problem]:
    """Check that every output which the params use is declared by the template it comes from.

    `aliases` maps the aliases of the same file to keys, `versions` keys to what serves them.
    """
    if all(
        keys and _declares(versions.get(aliases.get(alias, "")), keys)
        for alias, keys in requirement.uses
    ):
        return
    for below, reference in references(requirement.declaration.params, aliases=aliases):
        if reference.alias:
            path = f"{requirement.path}.params.{below}"
            yield from _unknown_output(
                requirement.workload, path, reference.alias, reference.keys, aliases, versions
            )


def container_output_problems(
    workload: Workload, aliases: Mapping[str, str], versions: Mapping[str, VersionFacts]
) -> Iterator[Problem]:
    """Check that every output which the containers use is declared by the template it comes from."""
    for path, alias, keys in container_references(workload):
        yield from _unknown_output(workload, path, alias, keys, aliases, versions)


def _unknown_output(
    workload: Workload,
    path: str,
    alias: str,
    keys: Sequence[str],
    aliases: Mapping[str, str],
    versions: Mapping[str, VersionFacts],
) -> Iterator[Problem]:
    version = versions.get(aliases.get(alias, ""))
    if version is None:
        return
    declared = sorted(name for name in version.outputs if name != "*")
    if not keys:
        yield workload.problem(
            path,
            f"${{resources.{alias}}} names a resource but none of its outputs.",
            hint=f"it has {', '.join(declared)}" if declared else "",
        )
    elif not _declares(version, keys):
        yield workload.problem(
            path,
            f"`{alias}` has no output `{keys[0]}`: the template {version.template} "
            f"{version.version} that serves it does not declare it.",
            hint=_did_you_mean(keys[0], declared) or f"it has {', '.join(declared) or 'none'}",
        )


def _declares(version: VersionFacts | None, keys: Sequence[str]) -> bool:
    return version is None or keys[0] in version.outputs or "*" in version.outputs


def _told(
    requirement: Requirement,
    error: ValidationError,
    template: str,
    properties: Mapping[str, Any],
) -> Iterator[Problem]:
    below = join_path(("params", *error.absolute_path))
    if error.validator == "additionalProperties" and isinstance(error.instance, Mapping):
        known = sorted(error.schema.get("properties", {}))  # type: ignore[union-attr]
        for name in sorted(set(error.instance) - set(known)):
            yield requirement.problem(
                f"`{name}` is not a parameter of {template}.",
                below=f"{below}.{join_path((name,))}",
                hint=_did_you_mean(name, known) or f"it takes {', '.join(known) or 'none'}",
            )
    elif error.validator == "required":
        required: Any = error.validator_value
        missing = next(name for name in required if repr(name) in error.message)
        description = properties.get(missing, {}).get("description", "")
        yield requirement.problem(
            f"The parameter `{missing}` is missing: {template} requires it.",
            below=below,
            hint=" ".join(description.split()),
        )
    else:
        shown = json.dumps(error.instance, sort_keys=True, default=str)
        schema = properties.get(str(next(iter(error.absolute_path), "")), {})
        yield requirement.problem(
            f"{shown[:80]} is not accepted by {template}: {_expectation(error)}.",
            below=below,
            hint=" ".join(schema.get("description", "").split()),
        )


def _expectation(error: ValidationError) -> str:
    wanted: Any = error.validator_value
    match error.validator:
        case "type":
            types = [wanted] if isinstance(wanted, str) else wanted
            return f"the type must be {' or '.join(types)}"
        case "enum":
            return f"it must be one of {', '.join(json.dumps(value) for value in wanted)}"
        case "pattern":
            return f"it must match the pattern {wanted}"
        case "minimum" | "maximum" | "minLength" | "maxLength" | "minItems" | "maxItems":
            return f"the {error.validator} is {wanted}"
        case _:
            return error.message


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean `{close[0]}`?" if close else ""
