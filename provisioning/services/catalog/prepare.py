"""Makes a template version out of a template's folder, without the database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from semantic_version import Version

from provisioning.drivers import driver_names, get_driver
from provisioning.drivers.base import Output, TemplateInterface
from provisioning.exceptions import ConductorError
from provisioning.score.workload import Problem
from provisioning.services.catalog.checks import check_problems
from provisioning.services.catalog.component import need_problems
from provisioning.services.catalog.content import Content, pack
from provisioning.services.catalog.merge import merge_problems
from provisioning.services.catalog.problems import CatalogError, likely
from provisioning.services.catalog.source import Source
from provisioning.services.catalog.template_file import TemplateFile, read_template_file


@dataclass(frozen=True, slots=True)
class Prepared:
    """Hold everything a template version is made of; `outputs` as the model keeps them."""

    file: TemplateFile
    content: Content
    params_schema: Mapping[str, Any]
    outputs: Sequence[Mapping[str, Any]]

    @property
    def version(self) -> Version:
        """Return the version in its order."""
        return Version(self.file.version)


def prepare(source: Source) -> list[Prepared]:
    """Read and check every template of a source; raise CatalogError with all their problems."""
    prepared: list[Prepared] = []
    problems: list[Problem] = []
    for path, name in source.template_files():
        try:
            prepared.append(prepare_template(read_template_file(path, name)))
        except CatalogError as error:
            problems += error.problems or [Problem(1, 1, "", str(error), file=name)]
    problems += _twins(prepared)
    if problems:
        raise CatalogError(problems=problems)
    return prepared


def prepare_template(file: TemplateFile) -> Prepared:
    """Pack a template's folder and ask its driver what the content declares."""
    if file.driver not in driver_names():
        known = driver_names()
        hint = likely(file.driver, known, otherwise=f"the drivers are {', '.join(known)}")
        message = f"There is no driver {file.driver}."
        raise CatalogError(problems=[file.problem(("driver",), message, hint=hint)])
    content = pack(file.folder)
    try:
        declared = get_driver(file.driver).describe(file.folder, file.config)
    except CatalogError:
        raise
    except ConductorError as error:
        message = f"The {file.driver} driver refuses the template: {error}"
        raise CatalogError(problems=[file.problem(("driver",), message)]) from error
    schema = _merged_schema(declared, file)
    outputs = _merged_outputs(declared.outputs, file.outputs)
    problems = [
        *merge_problems(file, schema),
        *check_problems(file, schema, outputs),
        *need_problems(file, schema),
    ]
    if problems:
        raise CatalogError(problems=problems)
    return Prepared(file, content, schema, outputs)


def _merged_schema(declared: TemplateInterface, file: TemplateFile) -> dict[str, Any]:
    """Lay the file's own schema over the declared one, param by param and key by key."""
    own = file.params
    theirs = declared.params_schema
    properties: dict[str, Any] = dict(theirs.get("properties", {}))
    for name, schema in own.get("properties", {}).items():
        before = properties.get(name, {})
        both = isinstance(before, dict) and isinstance(schema, dict)
        properties[name] = {**before, **schema} if both else schema
    merged = {
        "additionalProperties": False,
        **theirs,
        **own,
        "type": "object",
        "properties": properties,
    }
    required = sorted({*theirs.get("required", []), *own.get("required", [])} - {*file.inputs})
    merged.pop("required", None)
    merged |= {"required": required} if required else {}
    try:
        Draft202012Validator.check_schema(merged)
    except SchemaError as error:
        message = f"The params are no JSON Schema together with the content's: {error.message}."
        raise CatalogError(problems=[file.problem(("params",), message)]) from error
    return merged


def _merged_outputs(
    declared: Iterable[Output], own: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    defaults = {field.name: field.default for field in fields(Output) if field.name != "name"}
    merged = {output.name: asdict(output) for output in declared}
    for name, said in own.items():
        merged[name] = {"name": name, **defaults, **merged.get(name, {}), **said}
    return [merged[name] for name in sorted(merged)]


def _twins(prepared: Iterable[Prepared]) -> list[Problem]:
    """Find templates of one name and templates with an equal rule."""
    problems: list[Problem] = []
    names: dict[str, TemplateFile] = {}
    rules: dict[Any, TemplateFile] = {}
    for file in (each.file for each in prepared):
        if file.name in names:
            message = f"{names[file.name].file} is called {file.name} too."
            problems.append(file.problem(("name",), message, hint="rename one of them"))
        names.setdefault(file.name, file)
        for index, rule in enumerate(file.rules):
            other = rules.setdefault(rule, file)
            if other is not file or rule in file.rules[:index]:
                message = f"The template {other.name} has the same rule already ({rule})."
                path = ("rules", index) if "rules" in file.document.value else ("type",)
                problems.append(file.problem(path, message, hint="make one more specific"))
    return problems
