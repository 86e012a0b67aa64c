"""From Score text to plan, by phase, for generated applications of growing size."""

from __future__ import annotations

import gc
import time
from typing import NamedTuple

from benchmarks.generate import generate
from provisioning.planning.decide import decide
from provisioning.planning.facts import RuleFacts, Snapshot, TemplateFacts, VersionFacts
from provisioning.score.document import parse_application

SIZES = (100, 1_000, 10_000, 30_000)
TYPES = ("dns", "network", "postgres", "queue", "redis", "route", "s3")
SCHEMA = {
    "type": "object",
    "properties": {
        "size": {"type": "integer", "minimum": 1},
        "tags": {"type": "object", "additionalProperties": {"type": "string"}},
        "upstream": {"type": "string"},
        "network": {"type": "string"},
        "cidr": {"type": "string"},
    },
    "additionalProperties": False,
}
OUTPUTS = {"host": False, "port": False, "name": False, "password": True}


class Phases(NamedTuple):
    """Seconds of each phase for one application."""

    requirements: int
    parse: float
    decide: float
    digest: float

    @property
    def total(self) -> float:
        """Return the seconds from text to a plan with its digest."""
        return self.parse + self.decide + self.digest


def measure(requirements: int) -> Phases:
    """Plan a generated application with that many requirements in an empty environment."""
    files = generate(requirements)
    gc.collect()
    began = time.perf_counter()
    workloads = parse_application(files)
    parsed = time.perf_counter()
    plan = decide(workloads, _snapshot())
    decided = time.perf_counter()
    if not plan.digest:
        raise AssertionError("a plan has a digest")
    return Phases(requirements, parsed - began, decided - parsed, time.perf_counter() - decided)


def table() -> list[str]:
    """Measure every size and return the lines of the table."""
    lines = [
        f"{'requirements':>12}  {'parse s':>8}  {'decide s':>8}  {'digest s':>8}  {'total s':>8}"
    ]
    for size in SIZES:
        phases = measure(size)
        lines.append(
            f"{size:>12}  {phases.parse:>8.3f}  {phases.decide:>8.3f}  {phases.digest:>8.3f}  "
            f"{phases.total:>8.3f}"
        )
    return lines


def _snapshot() -> Snapshot:
    versions = [
        VersionFacts(number, type_, "1.0.0", f"sha256:{type_}", "fake", SCHEMA, OUTPUTS)
        for number, type_ in enumerate(TYPES, start=1)
    ]
    return Snapshot(
        organisation="bench",
        application="bench",
        team="bench",
        environment="bench",
        environment_kind="development",
        templates={each.id: TemplateFacts(each.id, each.template, each) for each in versions},
        rules=[RuleFacts(each.id, each.template) for each in versions],
    )
