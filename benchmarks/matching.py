"""How long it takes to find a resource by criteria, and what planning among many resources costs."""

from __future__ import annotations

import gc
import time
from dataclasses import replace
from statistics import median
from typing import NamedTuple

from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from provisioning.models import (
    Application,
    Environment,
    Organisation,
    Resource,
    ResourceTemplate,
    ResourceTemplateVersion,
    Team,
    TemplateRule,
)
from provisioning.planning.facts import (
    ConsumerFacts,
    ResourceFacts,
    RuleFacts,
    SlotFacts,
    Snapshot,
    TemplateFacts,
    VersionFacts,
)
from provisioning.planning.slots import Slots
from provisioning.score.document import parse_application
from provisioning.score.workload import Workload
from provisioning.services.deployments import plan_deployment

CANDIDATES = 10_000
ROUNDS = 20
SIZES = (100, CANDIDATES)
SCORE = """\
apiVersion: score.dev/v1b1
metadata: {name: api}
containers: {main: {image: busybox}}
resources:
  db:
    type: database
    params: {size: 3, tier: basic}
    matching: {matchOn: [size, tier], maxConsumers: 2}
"""


class Matched(NamedTuple):
    """Milliseconds of processor time to index the candidates and match one alias."""

    case: str
    median: float
    slowest: float


class Planned(NamedTuple):
    """What planning among so many live resources took: database queries and seconds."""

    resources: int
    where: str
    queries: int
    seconds: float


def measure_matching(candidates: int = CANDIDATES) -> list[Matched]:
    """Match among that many candidates: the first fits, none has the values, all are full."""
    (workload,) = parse_application([("score.yaml", SCORE)])
    cases = {
        "the first fits": _snapshot(candidates, size=3, full=False),
        "none has the values": _snapshot(candidates, size=4, full=False),
        "all are full": _snapshot(candidates, size=3, full=True),
    }
    return [_match(case, workload, snapshot) for case, snapshot in cases.items()]


def measure_planning() -> list[Planned]:
    """Plan one workload in environments of growing size, and beside them, as the scope says.

    Leaves nothing in the database.
    """
    with transaction.atomic():
        found = _measure_planning()
        transaction.set_rollback(True)
    return found


def _measure_planning() -> list[Planned]:
    organisation = Organisation.objects.create(name="bench-matching")
    team = Team.objects.create(organisation=organisation, name="bench")
    application = Application.objects.create(organisation=organisation, team=team, name="bench")
    version = _template(organisation)
    found = []
    for size in SIZES:
        environment = Environment.objects.create(organisation=organisation, name=f"has-{size}")
        _fill(environment, team, version, size)
        found.append(_plan(application, environment, SCORE, Planned(size, "there", 0, 0)))
    beside = Environment.objects.create(organisation=organisation, name="beside")
    wide = SCORE.replace("{matchOn", "{scope: organisation, matchOn")
    found.append(_plan(application, beside, wide, Planned(sum(SIZES), "elsewhere", 0, 0)))
    return found


def _match(case: str, workload: Workload, snapshot: Snapshot) -> Matched:
    declaration = workload.resources["db"]
    times = []
    for _ in range(ROUNDS):
        gc.collect()
        began = time.process_time()
        found = Slots([workload], snapshot).bind(workload, declaration, declaration.params)
        times.append((time.process_time() - began) * 1000)
        if len(found.considered) != 20:
            raise AssertionError("the best 20 are told one by one")
    return Matched(case, median(times), max(times))


def _snapshot(candidates: int, *, size: int, full: bool) -> Snapshot:
    version = VersionFacts(1, "database", "1.0.0", "sha256:1", "fake", {"type": "object"}, {})
    sample = ResourceFacts(
        id="",
        key="",
        name="",
        uid="database.default#other.db",
        type="database",
        class_="default",
        version=version,
        params={"size": size, "tier": "basic"},
        context={},
        spec_digest="",
        owner_team="other",
        created_by="other",
        clean=True,
    )
    resources = {}
    consumers = []
    for number in range(candidates):
        key = f"slot/{number}/0"
        slot = SlotFacts(str(number), 0, 1 if full else None)
        created_at = f"{number * 7919 % candidates:05}"
        resources[key] = replace(
            sample, id=str(number), key=key, name=key, slot=slot, created_at=created_at
        )
        consumers.append(ConsumerFacts(f"app-{number}", "api", "db", key, "match"))
    return Snapshot(
        organisation="bench",
        application="bench",
        team="bench",
        environment="bench",
        environment_kind="development",
        templates={1: TemplateFacts(1, "database", version)},
        rules=[RuleFacts(1, "database")],
        resources=resources,
        consumers=consumers,
    )


def _template(organisation: Organisation) -> ResourceTemplateVersion:
    template = ResourceTemplate.objects.create(
        organisation=organisation, name="database", type="database", driver="fake"
    )
    TemplateRule.objects.create(organisation=organisation, template=template, type="database")
    return ResourceTemplateVersion.objects.create(
        template=template, version="1.0.0", state="active", digest="sha256:1"
    )


def _fill(
    environment: Environment, team: Team, version: ResourceTemplateVersion, size: int
) -> None:
    Resource.objects.bulk_create(
        [
            Resource(
                environment=environment,
                owner_team=team,
                key=f"slot/{environment.name}/{number}",
                name=f"database-{number}",
                uid="database.default#other.db",
                type="database",
                class_name="default",
                template_version=version,
                state="active",
                params={"size": 4, "tier": "basic"},
                spec_digest="1",
                applied_spec_digest="1",
                match_slot=environment.name,
                slot_ordinal=number,
            )
            for number in range(size)
        ],
        batch_size=1000,
    )


def _plan(
    application: Application, environment: Environment, score: str, among: Planned
) -> Planned:
    with CaptureQueriesContext(connection) as captured:
        began = time.perf_counter()
        plan = plan_deployment(
            application=application, environment=environment, files=[("score.yaml", score)]
        )
        seconds = time.perf_counter() - began
    (binding,) = plan.bindings
    if len(binding.considered) + sum(binding.left_out.values()) != among.resources:
        raise AssertionError("every live resource was considered")
    return among._replace(queries=len(captured), seconds=seconds)
