"""How long it takes to deploy a workload that claims a ready member of a pool."""

from __future__ import annotations

import time
from statistics import median
from typing import NamedTuple

from provisioning.models import (
    Application,
    Environment,
    Organisation,
    Resource,
    ResourceConsumer,
    ResourcePool,
    ResourceTemplate,
    ResourceTemplateVersion,
    Team,
)
from provisioning.services.deployments import submit_deployment

CLAIMS = 50
SCORE = """\
apiVersion: score.dev/v1b1
metadata: {name: api}
containers: {main: {image: busybox}}
resources:
  db: {type: database, pool: warm}
"""


class Claimed(NamedTuple):
    """Milliseconds from the Score text to the end of the transaction that claimed a member."""

    claims: int
    median: float
    slowest: float


def measure() -> Claimed:
    """Let as many applications as there are members claim one each; needs the database."""
    organisation = Organisation.objects.create(name="bench-pool")
    team = Team.objects.create(organisation=organisation, name="bench")
    environment = Environment.objects.create(organisation=organisation, name="bench")
    _fill(environment, team, CLAIMS)
    times = []
    for number in range(CLAIMS):
        application = Application.objects.create(
            organisation=organisation, team=team, name=f"bench-{number}"
        )
        began = time.perf_counter()
        deployment = submit_deployment(
            application=application,
            environment=environment,
            files=[("score.yaml", SCORE)],
            actor=None,
        )
        times.append((time.perf_counter() - began) * 1000)
        if deployment.status != "succeeded":
            raise AssertionError("a ready member needs no step")
    claimed = ResourceConsumer.objects.filter(resource__environment=environment, state="active")
    if claimed.values("resource").distinct().count() != CLAIMS:
        raise AssertionError("every claim has a member of its own")
    return Claimed(CLAIMS, median(times), max(times))


def _fill(environment: Environment, team: Team, size: int) -> None:
    template = ResourceTemplate.objects.create(
        organisation=environment.organisation, name="database", type="database", driver="fake"
    )
    version = ResourceTemplateVersion.objects.create(
        template=template, version="1.0.0", state="active", digest="sha256:1"
    )
    pool = ResourcePool.objects.create(
        environment=environment,
        owner_team=team,
        name="warm",
        template_version=version,
        size=size,
        max_size=size,
    )
    Resource.objects.bulk_create(
        Resource(
            environment=environment,
            owner_team=team,
            pool=pool,
            key=f"pool/warm/{number}",
            name=f"database-{number}",
            uid=f"database.default#warm-{number}",
            type="database",
            class_name="default",
            template_version=version,
            state="active",
            spec_digest="1",
            applied_spec_digest="1",
        )
        for number in range(size)
    )
