"""A driver that makes nothing: its outputs are computed from expressions.

The template's `config` has `outputs`, a map (or list) of texts in which `${…}` holds a Jinja
expression, and may have `requires`, conditions with a message for when they do not hold:

    config:
      requires:
        - condition: ${params.workload in workloads}
          message: There is no workload ${params.workload}; there are ${workloads | join(", ")}.
      outputs:
        hostname: ${params.workload}
        url: http://${params.workload}:${params.port | default(80)}

A text that is one single expression keeps the type of its value. Expressions see `params`, `context`,
`workloads` (`{workload: {port name or number: {name, port, target_port, protocol}}}`; the template
must say `uses: [workloads]`), `variables` of the environment (`uses: [variables]`), `name`, `id`,
`uid`, `alias` (the last part of the uid's id), `type` and `class`. `pass_through: <expression>` adds
every entry of a map as an output.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, TemplateError, Undefined, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from provisioning.drivers.base import (
    DriverError,
    DriverInput,
    DriverResult,
    Output,
    Run,
    TemplateInterface,
    declared_sensitive,
    workload_ports,
)

_ENVIRONMENT = ImmutableSandboxedEnvironment(
    variable_start_string="${",
    variable_end_string="}",
    block_start_string="${%",
    block_end_string="%}",
    comment_start_string="${#",
    comment_end_string="#}",
    undefined=StrictUndefined,
    keep_trailing_newline=True,
)
_ENVIRONMENT.globals.clear()


class TemplateDriver:
    """Compute a resource's outputs from its params and its surroundings."""

    name = "template"
    label = "Template (computed outputs)"

    def tool(self) -> None:
        """Need no tool."""

    def describe(self, content: Path, config: Mapping[str, Any]) -> TemplateInterface:
        """Check the expressions, and take any output name of `config.outputs` as declared."""
        texts = _outputs(config)
        for place, text in _texts(config):
            try:
                _ENVIRONMENT.parse(text)
            except TemplateError as error:
                raise DriverError(
                    f"config.{place}: {error} in {text!r}.", permanent=True
                ) from error
        schema = {"type": "object", "properties": {}, "additionalProperties": False}
        return TemplateInterface(schema, tuple(Output(name) for name in sorted(texts)))

    def ensure(self, resource: DriverInput, run: Run) -> DriverResult:
        """Check what the template requires and compute the outputs."""
        scope = _scope(resource)
        for rule in resource.config.get("requires") or ():
            if not evaluate(rule["condition"], scope, "requires.condition"):
                raise DriverError(str(evaluate(rule["message"], scope, "requires.message")), True)
        passed = resource.config.get("pass_through")
        outputs = dict(evaluate(passed, scope, "pass_through")) if passed else {}
        texts = _outputs(resource.config)
        outputs |= evaluate(texts, scope, "outputs")
        secret = {name for name in texts if _reads(texts[name], resource.sensitive_params)}
        run.log(f"Computed {', '.join(sorted(outputs)) or 'no outputs'}.\n")
        return DriverResult(outputs, declared_sensitive(resource.outputs, outputs) | secret)

    def destroy(self, resource: DriverInput, run: Run) -> None:
        """Do nothing: there is nothing but the computed outputs."""


def evaluate(value: Any, scope: Mapping[str, Any], place: str) -> Any:
    """Return the value with its expressions evaluated; raise a permanent DriverError naming the place."""
    if isinstance(value, Mapping):
        return {key: evaluate(item, scope, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [evaluate(item, scope, f"{place}[{at}]") for at, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    try:
        return _evaluate_text(value, scope)
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise DriverError(f"config.{place}: {error} in {value!r}.", permanent=True) from error


def _evaluate_text(text: str, scope: Mapping[str, Any]) -> Any:
    tree = _ENVIRONMENT.parse(text)
    only = (
        tree.body[0].nodes if len(tree.body) == 1 and isinstance(tree.body[0], nodes.Output) else []
    )
    if len(only) == 1 and not isinstance(only[0], nodes.TemplateData):
        expression = text.strip()[2:-1]
        value = _ENVIRONMENT.compile_expression(expression, undefined_to_none=False)(**scope)
        if isinstance(value, Undefined):
            str(value)  # a strict undefined raises, saying what is missing
        return value
    return _ENVIRONMENT.from_string(tree).render(**scope)


def _scope(resource: DriverInput) -> dict[str, Any]:
    return {
        "params": dict(resource.params),
        "context": dict(resource.context),
        "workloads": workload_ports(resource.context),
        "variables": dict(resource.context.get("variables") or {}),
        "alias": resource.uid.rpartition("#")[2].rpartition(".")[2],
        "name": resource.name,
        "id": resource.resource_id,
        "uid": resource.uid,
        "type": resource.type,
        "class": resource.class_,
    }


def _outputs(config: Mapping[str, Any]) -> Mapping[str, Any]:
    outputs = config.get("outputs") or {}
    if not isinstance(outputs, Mapping):
        raise DriverError("config.outputs must be a map of output names to texts.", permanent=True)
    return outputs


def _reads(value: Any, params: frozenset[str]) -> bool:
    """Say whether an expression in the value reads one of these params, or all params at once."""
    trees = [_ENVIRONMENT.parse(text) for _, text in _texts(value)] if params else []
    for tree in trees:
        named = 0
        members: list[nodes.Getattr | nodes.Getitem] = [
            *tree.find_all(nodes.Getattr),
            *tree.find_all(nodes.Getitem),
        ]
        for node in members:
            if isinstance(node.node, nodes.Name) and node.node.name == "params":
                key = node.attr if isinstance(node, nodes.Getattr) else _constant(node.arg)
                if key is None or key in params:
                    return True
                named += 1
        if named < sum(name.name == "params" for name in tree.find_all(nodes.Name)):
            return True
    return False


def _constant(node: nodes.Node) -> Any:
    return node.value if isinstance(node, nodes.Const) else None


def _texts(value: Any, place: str = "") -> list[tuple[str, str]]:
    if isinstance(value, str):
        return [(place, value)]
    items = (
        value.items()
        if isinstance(value, Mapping)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [found for key, item in items for found in _texts(item, f"{place}.{key}".strip("."))]
