"""Checks the merge rules of a template against each other and against its params."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from provisioning.score.workload import Problem
from provisioning.services.catalog.problems import likely
from provisioning.services.catalog.template_file import TemplateFile

KEYS_OF = {
    "order": ("maximum", "minimum"),
    "limit": ("union", "maximum"),
    "key": ("union",),
    "fields": ("union",),
}


def merge_problems(file: TemplateFile, schema: Mapping[str, Any]) -> Iterator[Problem]:
    """Tell what is wrong with a template's `merge`; `schema` is that of its params."""
    properties = schema.get("properties", {})
    for param in sorted(file.merge):
        if param not in properties and not schema.get("additionalProperties", True):
            known = sorted(properties)
            hint = likely(param, known, otherwise=f"the params are {', '.join(known) or 'none'}")
            message = f"The template has no param {param} to merge."
            yield file.problem(("merge", param), message, hint=hint)
    if file.shrink != "apply" and not file.merge:
        message = f"shrink: {file.shrink} has no effect without merge rules."
        yield file.problem(("shrink",), message, hint="add merge, or leave it out")
    yield from _rule_problems(file, file.merge, ("merge",))


def _rule_problems(
    file: TemplateFile, rules: Mapping[str, Mapping[str, Any]], path: tuple[str, ...]
) -> Iterator[Problem]:
    for name, rule in rules.items():
        for key, allowed in KEYS_OF.items():
            if key in rule and rule["rule"] not in allowed:
                message = f"The rule {rule['rule']} takes no {key}."
                hint = f"{key} belongs to {' and '.join(allowed)}"
                yield file.problem((*path, name, key), message, hint=hint)
        if "limit" in rule and "order" in rule:
            message = "A maximum with an order takes no limit."
            yield file.problem((*path, name, "limit"), message, hint="shorten the order")
        yield from _rule_problems(file, rule.get("fields", {}), (*path, name, "fields"))
