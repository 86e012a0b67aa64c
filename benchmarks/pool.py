"""How long it takes to deploy a workload that claims a ready member of a pool."""

from __future__ import annotations

import time
from statistics import median
from typing import NamedTuple

from django.db.models import F

from provisioning.models import (
    Application,
    Environment,
    Organisation,
    Resource,
    ResourceConsumer,
    ResourceTemplate,
    ResourceTemplateVersion,
    Step,
    Team,
    TemplateRule,
)
from provisioning.services.deployments import submit_deployment
from provisioning.services.people import system_user
from provisioning.services.pools import create_pool

CLAIMS = 20
SCORE = """\
apiVersion: score.dev/v1b1
metadata: {name: api}
containers: {main: {image: busybox}}
resources:
  db: {type: database, %s}
"""
CLAIM = SCORE % "pool: warm"
JOIN = SCORE % "reference: {mode: shared, name: db}"


class Claimed(NamedTuple):
    """Milliseconds of deployments that claim a member, and of such that join a shared resource.

    Each is from the Score text to the end of the transaction, and runs no step.
    """

    claims: int
    claiming: float
    joining: float

    @property
    def claim(self) -> float:
        """Return what the claim adds to a deployment."""
        return self.claiming - self.joining


def measure() -> Claimed:
    """Let as many applications as there are members claim one each; needs the database."""
    organisation = Organisation.objects.create(name="bench-pool")
    team = Team.objects.create(organisation=organisation, name="bench")
    environment = Environment.objects.create(organisation=organisation, name="bench")
    _fill(environment, team, CLAIMS)
    _deploy("first", JOIN, environment, team)
    _take_as_made(environment)
    claiming, joining = [], []
    for number in range(CLAIMS):
        claiming.append(_deploy(f"claims-{number}", CLAIM, environment, team))
        joining.append(_deploy(f"joins-{number}", JOIN, environment, team))
    members = ResourceConsumer.objects.filter(
        resource__pool__environment=environment, state="active"
    )
    if members.values("resource").distinct().count() != CLAIMS:
        raise AssertionError("every claim has a member of its own")
    if Step.objects.filter(deployment__application__name__startswith="claims-").exists():
        raise AssertionError("a ready member needs no step")
    return Claimed(CLAIMS, median(claiming), median(joining))


def _deploy(name: str, score: str, environment: Environment, team: Team) -> float:
    application = Application.objects.create(
        organisation=environment.organisation, team=team, name=name
    )
    began = time.perf_counter()
    submit_deployment(
        application=application,
        environment=environment,
        files=[("score.yaml", score)],
        actor=None,
    )
    return (time.perf_counter() - began) * 1000


def _fill(environment: Environment, team: Team, size: int) -> None:
    template = ResourceTemplate.objects.create(
        organisation=environment.organisation, name="database", type="database", driver="fake"
    )
    TemplateRule.objects.create(
        organisation=environment.organisation, template=template, type="database"
    )
    version = ResourceTemplateVersion.objects.create(
        template=template, version="1.0.0", state="active", digest="sha256:1"
    )
    create_pool(
        environment=environment,
        team=team,
        name="warm",
        version=version,
        params={},
        size=size,
        max_size=size,
        max_concurrent=size,
        actor=system_user(),
    )


def _take_as_made(environment: Environment) -> None:
    """Let everything be active: how long the making takes is the driver's affair."""
    Step.objects.filter(resource__environment=environment).update(status="succeeded")
    made = Resource.objects.filter(environment=environment)
    made.update(state="active", applied_spec_digest=F("spec_digest"))
