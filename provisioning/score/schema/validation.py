from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, ValidationError

from provisioning.score.workload import Json, Part

CONDUCTOR_KEYS = ("reference", "sharing", "matching", "pool", "dependsOn", "priority")
TYPE_NAMES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "a map",
    "array": "a list",
    "null": "empty",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Say what is wrong at a place in a document; `at_key` if the key is wrong, not the value."""

    parts: tuple[Part, ...]
    message: str
    hint: str = ""
    at_key: bool = False


@cache
def validator(name: str) -> Draft202012Validator:
    """Load a schema of this folder, its references resolved once and for all.

    Patterns are given the meaning they have in Go: `$` is the end, not a last line break, and
    `\\d` an ASCII digit.
    """
    schema = json.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))
    return Draft202012Validator(_inlined(schema, schema))


def _inlined(part: Any, schema: Any) -> Any:
    if isinstance(part, list):
        return [_inlined(item, schema) for item in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        definition = schema["$defs"][part["$ref"].rpartition("/")[2]]
        part = {**definition, **{key: item for key, item in part.items() if key != "$ref"}}
    return {
        key: _portable(item) if key == "pattern" else _inlined(item, schema)
        for key, item in part.items()
        if key != "$defs"
    }


def _portable(pattern: Any) -> Any:
    if not isinstance(pattern, str):
        return pattern
    return re.sub(r"\$\Z", r"\\Z", pattern.replace(r"\d", "[0-9]"))


def findings(document: Json, schema: str) -> list[Finding]:
    """List everything in which `document` differs from the schema, in the order of its paths."""
    errors = validator(schema).iter_errors(document)
    found = [finding for error in errors for finding in _explain(error)]
    return list(dict.fromkeys(found))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Suggest the known word that is closest, if one is close."""
    candidates = list(known)
    # Letters swapped, and case or dashes forgotten, are likelier than what difflib finds.
    alike = [each for each in candidates if _letters(each) == _letters(word)]
    close = alike or get_close_matches(word, candidates, n=1, cutoff=0.6)
    return f"did you mean `{close[0]}`?" if close else ""


def _letters(word: str) -> list[str]:
    return sorted(word.lower().replace("-", "").replace("_", ""))


def _explain(error: ValidationError) -> list[Finding]:
    explain = EXPLANATIONS.get(str(error.validator))
    parts = tuple(error.absolute_path)
    if explain is None:
        return [Finding(parts, f"{_name(parts)} is not right: {error.message}.")]
    return explain(parts, error)


def _name(parts: tuple[Part, ...]) -> str:
    return f"`{'.'.join(map(str, parts))}`" if parts else "The document"


def show(value: Json) -> str:
    """Quote a value as a file would have it, cut to a length that fits in a sentence."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _required(parts: tuple[Part, ...], error: ValidationError) -> list[Finding]:
    instance: Json = error.instance
    required: list[str] = error.validator_value  # type: ignore[assignment]
    missing = next(key for key in required if error.message.startswith(repr(key)))
    path = ".".join(map(str, (*parts, missing)))
    close = get_close_matches(missing, [key for key in instance if isinstance(key, str)], n=1)
    hint = f"is `{close[0]}` meant to be `{missing}`?" if close else f"add `{missing}:`"
    return [Finding(parts, f"`{path}` is missing: it is required.", hint)]


def _unknown_keys(parts: tuple[Part, ...], error: ValidationError) -> list[Finding]:
    schema: dict[str, Any] = error.schema  # type: ignore[assignment]
    instance: Json = error.instance
    known = [key for key in schema.get("properties", {}) if not _deprecated(schema, key)]
    if len(parts) == 2 and parts[0] == "resources":
        known += CONDUCTOR_KEYS
    where = _name(parts) if parts else "a Score file"
    return [
        Finding((*parts, key), f"`{key}` is not a key of {where}.", _hint(key, known), at_key=True)
        for key in instance
        if key not in schema.get("properties", {})
    ]


# What other formats call a key that Score has too.
OTHER_NAMES = {
    "env": "variables",
    "environment": "variables",
    "properties": "params",
    "parameters": "params",
    "spec": "params",
}


def _hint(key: str, known: list[str]) -> str:
    if OTHER_NAMES.get(key) in known:
        return f"did you mean `{OTHER_NAMES[key]}`?"
    if key == "ports":
        return "ports belong to `service.ports`"
    return did_you_mean(key, known) or f"known are {_list(known)}"


def _deprecated(schema: dict[str, Any], key: str) -> bool:
    return bool(schema["properties"][key].get("deprecated"))


def _list(words: list[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _type(parts: tuple[Part, ...], error: ValidationError) -> list[Finding]:
    wanted = TYPE_NAMES.get(str(error.validator_value), str(error.validator_value))
    value = error.instance
    if value is None:
        hint = "give it a value, or leave the key out"
        return [Finding(parts, f"{_name(parts)} is empty; it must be {wanted}.", hint)]
    hint = ""
    if error.validator_value == "string" and isinstance(value, bool | int | float):
        hint = f'write it in quotes: "{show(value)}"'
    elif error.validator_value in ("integer", "boolean") and isinstance(value, str):
        hint = "write it without quotes"
    return [Finding(parts, f"{_name(parts)} must be {wanted}, not {show(value)}.", hint)]


def _format(parts: tuple[Part, ...], error: ValidationError) -> list[Finding]:
    schema: dict[str, Any] = error.schema  # type: ignore[assignment]
    if "propertyNames" in list(error.schema_path)[-2:-1]:
        return _wrong_name(parts, error)
    hint = _format_hint(schema, str(error.instance))
    if error.instance == "":
        return [Finding(parts, f"{_name(parts)} is empty.", hint)]
    return [Finding(parts, f"{_name(parts)} may not be {show(error.instance)}.", hint)]


def _format_hint(schema: dict[str, Any], value: str) -> str:
    pattern = schema.get("pattern", "")
    literal = pattern.removeprefix("^").removesuffix(r"\Z").replace(r"\.", ".")
    if re.fullmatch(r"[\w./-]+", literal):
        return f"write {literal}"
    if pattern == LABEL:
        return _label_hint(value)
    said = " ".join(KNOWN_RULES.get(pattern, schema.get("description", "")).split())
    return said or f"it must match {pattern.removesuffix(END)}{'$' * pattern.endswith(END)}"


END = r"\Z"
LABEL = r"^[a-z0-9][a-z0-9-]{0,61}[a-z0-9]\Z"

KNOWN_RULES = {
    (
        r"^(([a-z0-9][a-z0-9-]{0,61}[a-z0-9])(\.[a-z0-9][a-z0-9-]{0,61}[a-z0-9])*/)?"
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,61}[A-Za-z0-9]\Z"
    ): (
        "it has 2 to 63 of A-Z, a-z, 0-9, ., _ and -, starts and ends with a letter or a digit, and "
        "may have a lower-case host name and / in front"
    ),
    r"^[A-Za-z0-9][A-Za-z0-9-]{0,61}[A-Za-z0-9]\Z": (
        "it has 2 to 63 of A-Z, a-z, 0-9 and -, and neither starts nor ends with -"
    ),
    r"^[a-z0-9]+(?:-+[a-z0-9]+)*(?:\.[a-z0-9]+(?:-+[a-z0-9]+)*)*\Z": (
        "it has 2 to 63 of a-z, 0-9, - and ., and starts and ends with a letter or a digit"
    ),
}


def _label_hint(value: str) -> str:
    rule = "a name has 2 to 63 of a-z, 0-9 and -, and neither starts nor ends with -"
    plain = re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-")
    return f"did you mean `{plain}`? {rule}" if 2 <= len(plain) <= 63 else rule


def _wrong_name(parts: tuple[Part, ...], error: ValidationError) -> list[Finding]:
    name, schema = str(error.instance), error.schema
    hint = _format_hint(schema, name) if isinstance(schema, dict) else ""
    return [Finding((*parts, name), f"`{name}` is not a valid name in {_name(parts)}.", hint, True)]


def _enum(parts: tuple[Part, ...], error: ValidationError) -> list[Finding]:
    allowed: list[str] = error.validator_value  # type: ignore[assignment]
    known = [str(each) for each in allowed]
    hint = did_you_mean(str(error.instance), known)
    return [Finding(parts, f"{_name(parts)} must be one of {', '.join(known)}.", hint)]


def _alternatives(parts: tuple[Part, ...], error: ValidationError) -> list[Finding]:
    """Explain a oneOf or anyOf: of keys of which one must be there, or of a list and a map."""
    branches: list[dict[str, Any]] = error.validator_value  # type: ignore[assignment]
    instance: Json = error.instance
    if all("required" in branch for branch in branches) and isinstance(instance, dict):
        keys = [branch["required"][0] for branch in branches]
        given = [key for key in keys if key in instance]
        what = f"has {_list(given)}" if given else "has none"
        number = "exactly one" if error.validator == "oneOf" else "at least one"
        return [Finding(parts, f"{_name(parts)} needs {number} of {_list(keys)} and {what}.")]
    types = {"object": dict, "array": list}
    for index, branch in enumerate(branches):
        if isinstance(instance, types.get(branch.get("type", ""), ())):
            inner = [each for each in error.context or () if each.schema_path[0] == index]
            return [finding for each in inner for finding in _explain(each)]
    return [Finding(parts, f"{_name(parts)} must be a map, not {show(instance)}.")]


def _not(parts: tuple[Part, ...], _error: ValidationError) -> list[Finding]:
    return [
        Finding(
            (*parts, "target"),
            f"`target` is not a key of {_name(parts)}.",
            "in a map, the key is the target",
            at_key=True,
        )
    ]


def _range(parts: tuple[Part, ...], error: ValidationError) -> list[Finding]:
    bound = "at least" if error.validator == "minimum" else "at most"
    message = f"{_name(parts)} must be {bound} {error.validator_value}, not {error.instance}."
    return [Finding(parts, message)]


def _empty(parts: tuple[Part, ...], _error: ValidationError) -> list[Finding]:
    return [Finding(parts, f"{_name(parts)} needs at least one entry.")]


EXPLANATIONS: dict[str, Callable[[tuple[Part, ...], ValidationError], list[Finding]]] = {
    "required": _required,
    "additionalProperties": _unknown_keys,
    "type": _type,
    "pattern": _format,
    "minLength": _format,
    "maxLength": _format,
    "enum": _enum,
    "oneOf": _alternatives,
    "anyOf": _alternatives,
    "not": _not,
    "minimum": _range,
    "maximum": _range,
    "minProperties": _empty,
}
