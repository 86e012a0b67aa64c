"""How long a worker needs to take the next step out of a long queue."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import NamedTuple

from django.db import connection
from django_q.models import OrmQ

from provisioning.models import (
    Application,
    Deployment,
    Environment,
    Organisation,
    Resource,
    ResourceTemplate,
    ResourceTemplateVersion,
    Step,
    Team,
)
from provisioning.workers.tasks import claim

PENDING = 10_000
CLAIMS = 100
CHAIN = 5


class Claims(NamedTuple):
    """Milliseconds of one claim, the doorbell for the next worker included."""

    case: str
    p50: float
    p95: float


def measure() -> Iterator[Claims]:
    """Claim from queues of PENDING steps of different shapes; needs the database."""
    organisation = Organisation.objects.create(name="bench-claim")
    template = ResourceTemplate.objects.create(
        organisation=organisation, name="part", type="part", driver="fake"
    )
    version = ResourceTemplateVersion.objects.create(
        template=template, version="1.0.0", state="active", digest="sha256:1"
    )
    for teams, steps in ((1, 25), (20, 25), (20, 1), (100, 1)):
        environment = Environment.objects.create(
            organisation=organisation, name=f"bench-{teams}-{steps}", queue=f"bench-{teams}-{steps}"
        )
        _fill(environment, version, teams=teams, steps=steps)
        case = f"{PENDING // steps:,} deployments of {teams} teams"
        yield _measure(case, environment.queue)
        if steps > 1:
            Environment.objects.filter(pk=environment.pk).update(max_concurrent=CLAIMS * 2)
            yield _measure(f"{case}, limited", environment.queue)
        Deployment.objects.filter(environment=environment).update(status="cancelled")
        Step.objects.filter(deployment__environment=environment).update(status="cancelled")
        OrmQ.objects.filter(key=environment.queue).delete()


def _measure(case: str, queue: str) -> Claims:
    took = []
    for _ in range(CLAIMS):
        began = time.perf_counter()
        step = claim(queue)
        took.append((time.perf_counter() - began) * 1000)
        if step is None:
            raise AssertionError("a step is ready")
    percentiles = statistics.quantiles(took, n=100, method="inclusive")
    return Claims(case, percentiles[49], percentiles[94])


def _fill(
    environment: Environment, version: ResourceTemplateVersion, *, teams: int, steps: int
) -> None:
    """Store running deployments whose pending steps form chains."""
    rows = Team.objects.bulk_create(
        Team(organisation=environment.organisation, name=f"{environment.name}-{number}")
        for number in range(teams)
    )
    applications = Application.objects.bulk_create(
        Application(
            organisation=environment.organisation,
            team=rows[number % teams],
            name=f"{environment.name}-app-{number}",
        )
        for number in range(PENDING // steps)
    )
    stored = Deployment.objects.bulk_create(
        Deployment(
            kind="deploy",
            application=application,
            environment=environment,
            status="running",
            plan_digest="1",
        )
        for application in applications
    )
    resources = Resource.objects.bulk_create(
        Resource(
            environment=environment,
            owner_team=deployment.application.team if deployment.application else rows[0],
            key=f"private/{deployment.pk}/{position}",
            name=f"part-{deployment.pk}-{position}",
            uid="part.default#web.part",
            type="part",
            class_name="default",
            template_version=version,
        )
        for deployment in stored
        for position in range(steps)
    )
    every = Step.objects.bulk_create(
        Step(
            deployment=stored[number // steps],
            resource=resource,
            action="ensure",
            position=number % steps,
            queue=environment.queue,
        )
        for number, resource in enumerate(resources)
    )
    link = Step.needs.through
    link.objects.bulk_create(
        link(from_step_id=step.pk, to_step_id=every[number - 1].pk)
        for number, step in enumerate(every)
        if step.position % CHAIN
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
