"""Reads what makes a template a component, and checks what templates need besides themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from provisioning.planning.checks import ANY_FACT, WISH
from provisioning.planning.expressions import NEED_CONTEXT, OWN_CONTEXT, SELF, check_expressions
from provisioning.planning.needs import Need, names_of
from provisioning.score.reader import RawDocument
from provisioning.score.workload import Problem
from provisioning.services.catalog.checks import condition_problems

if TYPE_CHECKING:
    from provisioning.services.catalog.template_file import TemplateFile

COMPONENT = "component"
NOT_FOR_COMPONENTS = ("driver", "config", "inputs", "naming")


def written_out(said: Mapping[str, Any]) -> dict[str, Any]:
    """Write a component as a template: its outputs are inputs that the template driver hands on."""
    value = dict(said)
    if value.get("kind") != COMPONENT:
        return value
    outputs = value.get("outputs", {})
    value["driver"] = "template"
    value["inputs"] = {_input(name): each["value"] for name, each in outputs.items()}
    value["config"] = {
        "outputs": {name: f"${{params[{json.dumps(_input(name))}]}}" for name in outputs}
    }
    value["outputs"] = {
        name: {key: item for key, item in each.items() if key != "value"}
        for name, each in outputs.items()
    }
    params = value.get("params", {})
    shaped = {_input(name): _shape(each) for name, each in outputs.items()}
    if params.get("type") == "object":
        value["params"] = {**params, "properties": {**params.get("properties", {}), **shaped}}
    else:
        value["params"] = {**params, **shaped}
    return value


def kind_problems(document: RawDocument) -> Iterator[Problem]:
    """Tell which keys do not belong to the kind of template that a valid document is."""
    value = document.value
    component = value.get("kind") == COMPONENT
    for key in NOT_FOR_COMPONENTS if component else ():
        if key in value:
            yield document.problem((key,), f"A component has no {key}.", hint="leave it out")
    if component and not value.get("requirements"):
        message = "A component is made of what it requires, and this one requires nothing."
        yield document.problem(("kind",), message, hint="add requirements")
    for name, said in value.get("outputs", {}).items():
        given = said is not None and "value" in said
        if component and not given:
            message = f"The output {name} of a component needs a value."
            yield document.problem(("outputs", name), message, hint="such as ${key.output}")
        if given and not component:
            message = "Only the outputs of a component have a value."
            yield document.problem(("outputs", name, "value"), message, hint="leave it out")


def need_problems(file: TemplateFile, schema: Mapping[str, Any]) -> Iterator[Problem]:
    """Tell what is wrong with what a template needs; `schema` is that of its params."""
    needs = [Need.of(each, required=True) for each in file.requirements]
    beside = [Need.of(each, required=False) for each in file.co_provision]
    places = [("requirements", at) for at in range(len(needs))]
    places += [("co_provision", at) for at in range(len(beside))]
    seen: set[str] = set()
    for place, need in zip(places, [*needs, *beside], strict=True):
        if need.key in seen:
            message = f"There is another need with the key {need.key}."
            yield file.problem(place, message, hint="give one of them another key")
        seen.add(need.key)
    properties = schema.get("properties", {})
    for name in (*file.inputs, *file.share_same):
        if name not in properties and not schema.get("additionalProperties", True):
            key = "inputs" if name in file.inputs else "share_same"
            known = ", ".join(sorted(properties)) or "none"
            message = f"The template has no param {name}."
            yield file.problem((key,), message, hint=f"the params are {known}")
    own = sorted(set(properties) - set(file.inputs))
    names = names_of(needs)
    for place, need in zip(places, [*needs, *beside], strict=True):
        visible = [*names, *([] if need.required else [SELF])]
        found = check_expressions(need.params, params=own, names=visible, context=NEED_CONTEXT)
        for parts, message in found:
            yield file.problem((*place, "params", *parts), message)
        roots = {
            **ANY_FACT,
            WISH: None if any("$" in key for key in need.params) else [*need.params],
        }
        for at, check in enumerate(need.validators):
            yield from condition_problems(file, (*place, "validators", at), check, roots)
    component = file.kind == COMPONENT
    for name, value in file.inputs.items():
        found = check_expressions(value, params=own, names=names, context=OWN_CONTEXT)
        for parts, message in found:
            path = ("outputs", name.partition(".")[2], "value") if component else ("inputs", name)
            yield file.problem((*path, *parts), message)


def _input(output: str) -> str:
    return f"output.{output}"


def _shape(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a component's input: an output that is no text keeps its type."""
    type_ = said.get("type", "string")
    return {} if type_ == "any" else {"type": type_}
