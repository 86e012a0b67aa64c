"""Checks the conditions that a template states about its resources once they are there."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from provisioning.drivers.base import ANY_OUTPUT
from provisioning.planning.checks import OUTPUTS, PARAMS, WISH
from provisioning.planning.conditions import ConditionError, Roots, read_condition
from provisioning.score.workload import Part, Problem

if TYPE_CHECKING:
    from provisioning.services.catalog.template_file import TemplateFile


def check_problems(
    file: TemplateFile, schema: Mapping[str, Any], outputs: Sequence[Mapping[str, Any]]
) -> Iterator[Problem]:
    """Tell what is wrong with a template's `checks`, given its params' schema and its outputs."""
    properties = schema.get("properties", {})
    secret = {
        name
        for name, said in properties.items()
        if isinstance(said, Mapping) and said.get("writeOnly")
    }
    known = None if schema.get("additionalProperties", True) else sorted(properties)
    wished = None if known is None else sorted({*known} - {*file.inputs})
    names = [output["name"] for output in outputs]
    roots = {WISH: wished, PARAMS: known, OUTPUTS: None if ANY_OUTPUT in names else names}
    for at, check in enumerate(file.checks):
        yield from condition_problems(file, ("checks", at), check, roots, secret=secret)


def condition_problems(
    file: TemplateFile,
    place: tuple[Part, ...],
    check: Mapping[str, str],
    roots: Roots,
    *,
    secret: Collection[str] = (),
) -> Iterator[Problem]:
    """Tell what is wrong with one condition; `secret` are the params that no condition may name."""
    where = (*place, "condition")
    try:
        condition = read_condition(check["condition"], roots)
    except ConditionError as error:
        yield file.problem(where, str(error), hint="docs/catalog.md tells what can be compared")
        return
    if not condition.paths():
        message = f"The condition {check['condition']} compares no facts."
        yield file.problem(where, message, hint=f"there are {', '.join(roots)}")
    for name in sorted((condition.names(WISH) | condition.names(PARAMS)) & {*secret}):
        message = f"The param {name} is sensitive, and only its driver knows its value."
        yield file.problem(where, message, hint="compare an output instead")
