"""Reads `template.yaml`; every problem has its file and line. docs/catalog.md describes the format."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from semantic_version import Version

from provisioning.durations import DurationError, read_duration
from provisioning.planning.conditions import ConditionError, read_condition
from provisioning.score.reader import RawDocument, read
from provisioning.score.workload import Problem
from provisioning.services.catalog.component import kind_problems, written_out
from provisioning.services.catalog.problems import CatalogError, likely

FILE_NAME = "template.yaml"
MAX_FILE_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Rule:
    """Say which requirements a template serves; an empty field matches everything."""

    type: str
    class_: str = ""
    id: str = ""
    environment_kind: str = ""
    environment: str = ""
    application: str = ""

    def __str__(self) -> str:
        """Write the rule as in `template.yaml`."""
        fields = {
            "type": self.type,
            "class": self.class_,
            "id": self.id,
            "environment_kind": self.environment_kind,
            "environment": self.environment,
            "application": self.application,
        }
        return ", ".join(f"{name} {value}" for name, value in fields.items() if value)


@dataclass(frozen=True, slots=True)
class TemplateFile:
    """Hold one valid `template.yaml`.

    `params` is a whole JSON Schema of an object, or empty; `outputs` maps a name to what the file
    says of it; `grace` and `timeout` are seconds.
    """

    file: str
    folder: Path
    name: str
    type: str
    class_: str
    version: str
    driver: str
    description: str
    params: Mapping[str, Any]
    outputs: Mapping[str, Mapping[str, Any]]
    config: Mapping[str, Any]
    uses: tuple[str, ...]
    rules: tuple[Rule, ...]
    deletion_policy: str
    share_when: str
    merge: Mapping[str, Mapping[str, Any]]
    shrink: str
    grace: int
    timeout: int | None
    checks: tuple[Mapping[str, str], ...]
    kind: str
    requirements: tuple[Mapping[str, Any], ...]
    co_provision: tuple[Mapping[str, Any], ...]
    inputs: Mapping[str, Any]
    share_same: tuple[str, ...]
    naming: Mapping[str, Any]
    document: RawDocument = field(compare=False, repr=False)

    def problem(self, path: tuple[str | int, ...], message: str, *, hint: str = "") -> Problem:
        """Place a problem in this file."""
        return _in_file(self.document.problem(path, message, hint=hint), self.file)


def read_template_file(path: Path, name: str) -> TemplateFile:
    """Read a `template.yaml`, called `name` in messages; raise CatalogError with every problem."""
    document = _document(path, name)
    problems = document.problems or list(_problems(document))
    if problems:
        raise CatalogError(problems=[_in_file(problem, name) for problem in problems])
    value = written_out(document.value)
    class_ = value.get("class", "default")
    rules = value.get("rules", [{}])
    return TemplateFile(
        file=name,
        folder=path.parent,
        name=value["name"],
        type=value["type"],
        class_=class_,
        version=value["version"],
        driver=value["driver"],
        description=value.get("description", ""),
        params=_whole_schema(value.get("params", {})),
        outputs={output: said or {} for output, said in value.get("outputs", {}).items()},
        config=value.get("config", {}),
        uses=tuple(value.get("uses", [])),
        rules=tuple(_rule(rule, value["type"], class_) for rule in rules),
        deletion_policy=value.get("deletion_policy", "delete"),
        share_when=value.get("share_when", "").strip(),
        merge=_merge_rules(value.get("merge", {})),
        shrink=value.get("shrink", "apply"),
        grace=value.get("grace", 0),
        timeout=read_duration(value["timeout"]) if "timeout" in value else None,
        checks=tuple(value.get("checks", [])),
        kind=value.get("kind", "resource"),
        requirements=tuple(value.get("requirements", [])),
        co_provision=tuple(value.get("co_provision", [])),
        inputs=value.get("inputs", {}),
        share_same=tuple(value.get("share_same", [])),
        naming=value.get("naming", {}),
        document=document,
    )


def _document(path: Path, name: str) -> RawDocument:
    if path.is_symlink():
        raise CatalogError(f"{name} must be a file, and is a link.")
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise CatalogError(f"{name} is larger than {MAX_FILE_BYTES:,} bytes.")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CatalogError(f"{name} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise CatalogError(f"{name} is not UTF-8 text.") from error
    documents = list(read(text))
    if len(documents) != 1:
        raise CatalogError(f"{name} must hold one YAML document, and holds {len(documents)}.")
    if "\\u0000" in json.dumps(documents[0].value):
        raise CatalogError(f"{name} holds a NUL character, which PostgreSQL cannot store.")
    return documents[0]


def _rule(rule: Mapping[str, str], type_: str, class_: str) -> Rule:
    """Fill in the template's own type and class; a rule for another type has no default class."""
    own_class = class_ if rule.get("type", type_) == type_ else ""
    return Rule(
        type=rule.get("type", type_),
        class_=rule.get("class", own_class),
        id=rule.get("id", ""),
        environment_kind=rule.get("environment_kind", ""),
        environment=rule.get("environment", ""),
        application=rule.get("application", ""),
    )


def _merge_rules(said: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Write every rule as an object."""
    rules: dict[str, dict[str, Any]] = {}
    for name, rule in said.items():
        rules[name] = {"rule": rule} if isinstance(rule, str) else dict(rule)
        if "fields" in rule and not isinstance(rule, str):
            rules[name]["fields"] = _merge_rules(rule["fields"])
    return rules


def _whole_schema(params: Mapping[str, Any]) -> Mapping[str, Any]:
    if not params or params.get("type") == "object":
        return params
    return {"type": "object", "properties": dict(params)}


@cache
def _validator() -> Draft202012Validator:
    text = resources.files(__package__ or "").joinpath("template.schema.json").read_text()
    return Draft202012Validator(json.loads(text))


def _problems(document: RawDocument) -> Iterator[Problem]:
    errors = list(_validator().iter_errors(document.value))
    for error in errors:
        yield from _schema_problems(document, error)
    if not errors:
        yield from _version_problems(document)
        yield from _params_problems(document)
        yield from _share_when_problems(document)
        yield from _timeout_problems(document)
        yield from kind_problems(document)


def _schema_problems(document: RawDocument, error: ValidationError) -> Iterator[Problem]:
    path = tuple(error.absolute_path)
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = _known_keys(error.schema)
        for key in sorted(set(error.instance) - set(known)):
            hint = likely(key, known, otherwise=f"the keys are {', '.join(known)}")
            message = f"{key} is not a key that is known here."
            yield document.problem((*path, key), message, hint=hint, at_key=True)
    elif error.validator == "required":
        missing = error.message.split("'")[1]
        yield document.problem(path, f"{missing} is missing.")
    elif error.validator == "enum":
        known = [str(value) for value in cast("list[object]", error.validator_value)]
        message = f"{error.instance!r} is not one of {', '.join(known)}."
        yield document.problem(path, message, hint=likely(error.instance, known))
    elif error.validator == "type" and path[-1:] == ("version",):
        yield document.problem(path, "The version must be text.", hint="put it in quotes")
    elif error.validator == "pattern":
        hint = "use letters, digits and hyphens; start and end with a letter or a digit"
        yield document.problem(path, f"{error.instance!r} is not a valid name.", hint=hint)
    else:
        place = ".".join(str(part) for part in path) or "The document"
        yield document.problem(path, f"{place}: {error.message}.")


def _known_keys(schema: Any) -> list[str]:
    return list(schema["properties"])


def _version_problems(document: RawDocument) -> Iterator[Problem]:
    version = document.value["version"]
    try:
        build = Version(version).build
    except ValueError:
        message = f"{version!r} is not a semantic version."
        yield document.problem(("version",), message, hint="write it like 1.0.0")
    else:
        if build:
            message = f"{version!r} has build metadata, by which versions have no order."
            yield document.problem(("version",), message, hint="leave out what follows the +")


def _params_problems(document: RawDocument) -> Iterator[Problem]:
    params = document.value.get("params", {})
    for key, value in params.items():
        if params.get("type") != "object" and not isinstance(value, dict | bool):
            hint = "a whole schema says `type: object`" if key in ("required", "type") else ""
            message = f"The param {key} needs a JSON Schema, such as {{type: string}}."
            yield document.problem(("params", key), message, hint=hint)
            return
    try:
        Draft202012Validator.check_schema(_whole_schema(params))
    except SchemaError as error:
        path = tuple(error.absolute_path)[params.get("type") != "object" :]
        yield document.problem(("params", *path), f"This is no JSON Schema: {error.message}.")
        return
    for path in _foreign_references(params, ()):
        yield document.problem(
            ("params", *path), "A $ref may only point into the same schema.", hint="start it with #"
        )


def _share_when_problems(document: RawDocument) -> Iterator[Problem]:
    try:
        read_condition(document.value.get("share_when", "True"))
    except ConditionError as error:
        yield document.problem(("share_when",), str(error), hint="docs/sharing.md tells the rules")


def _timeout_problems(document: RawDocument) -> Iterator[Problem]:
    try:
        read_duration(document.value.get("timeout", 1))
    except DurationError as error:
        yield document.problem(("timeout",), str(error))


def _foreign_references(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    """Find references that a validator would have to fetch from elsewhere."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key in ("$ref", "$dynamicRef") and isinstance(item, str) and item[:1] != "#":
                yield (*path, key)
            yield from _foreign_references(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _foreign_references(item, (*path, index))


def _in_file(problem: Problem, file: str) -> Problem:
    return Problem(problem.line, problem.column, problem.path, problem.message, problem.hint, file)
