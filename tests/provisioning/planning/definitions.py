"""Reads resource definitions of the graph patterns as template versions of the planner's tests."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from provisioning.planning.facts import RuleFacts, Snapshot, VersionFacts
from tests.provisioning.planning.facts import make_snapshot

REFERENCE = re.compile(r"\$\{resources(?:\.([\w.#-]+?)|\['([^']+)'\])\.outputs\.(\w+)\}")
NAME = re.compile(r"(?P<type>[\w-]+)(?:\.(?P<class>[\w-]+))?(?:#(?P<id>[\w-]+))?")


def catalogue(texts: Iterable[str]) -> Snapshot:
    """Make a snapshot whose catalogue has the given definitions, each with its criteria as rules."""
    versions, rules = [], []
    for number, text in enumerate(texts, start=1):
        definition = yaml.safe_load(text.replace("*//}", "*/}"))
        entity = definition["entity"]
        versions.append(_version(number, definition["metadata"]["id"], entity))
        rules += [
            RuleFacts(
                number,
                entity["type"],
                class_=each.get("class", ""),
                resource_id=each.get("res_id", ""),
            )
            for each in entity.get("criteria", [{}])
        ]
    return make_snapshot(*versions, rules=rules)


def definitions(folder: Path) -> list[str]:
    """Read the definitions of a pattern, except those of workloads."""
    return [
        each.read_text() for each in sorted(folder.glob("def-*")) if "workload" not in each.name
    ]


def _version(number: int, name: str, entity: Mapping[str, Any]) -> VersionFacts:
    requirements: dict[str, dict[str, Any]] = {}
    inputs = {}
    for param, value in entity.get("driver_inputs", {}).get("values", {}).items():
        inputs[param] = REFERENCE.sub(lambda match: _reference(match, requirements), str(value))
    return VersionFacts(
        id=number,
        template=name,
        version="1.0.0",
        digest=name,
        driver="template",
        params_schema={"type": "object", "additionalProperties": True},
        outputs={"*": False},
        requirements=tuple(requirements.values()),
        co_provision=tuple(
            {
                **_place(target),
                "is_dependent": said.get("is_dependent", False),
                "copy_dependents": said.get("match_dependents", False),
            }
            for target, said in entity.get("provision", {}).items()
        ),
        inputs=inputs if requirements else {},
    )


def _reference(match: re.Match[str], requirements: dict[str, dict[str, Any]]) -> str:
    target = match[1] or match[2]
    need = requirements.setdefault(
        target,
        {"class": "${class}", "id": "${id}", **_place(target), "key": f"r{len(requirements)}"},
    )
    return f"${{{need['key']}.{match[3]}}}"


def _place(target: str) -> dict[str, Any]:
    match = NAME.fullmatch(target)
    assert match is not None
    return {name: value for name, value in match.groupdict().items() if value}
