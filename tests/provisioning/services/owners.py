"""A place where one team has what another asks for."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User

from provisioning.models import (
    Approval,
    Deployment,
    ResourceConsumer,
)
from provisioning.services.outputs import resolved_outputs
from tests.provisioning.place import Place

CACHE = "shared/cache"
SHARED = """\
  cache:
    type: cache
    reference: {mode: shared, name: cache}
"""
USED = SHARED + "  db:\n    type: database\n    params: {from: '${resources.cache.host}'}\n"


@pytest.fixture
def owned(place: Place, charlie: User, bob: User) -> Place:
    """Return a place where charlie's team has a cache, and bob's team has the application billing."""
    place.team = ""
    place.template("cache", outputs={"host": False, "password": True})
    place.template("database", outputs={"host": False})
    place.team_named("shop-team", charlie)
    place.team_named("billing-team", bob)
    place.deploy(SHARED)
    return place


def ask(place: Place, bob: User, resources: str = SHARED, **more: Any) -> Approval:
    """Submit billing's deployment as this person, and return its only question."""
    deployment = place.submit(resources, application="billing", actor=bob, **more)
    return Approval.objects.get(deployment=deployment, status="pending")


def fresh(deployment: Deployment) -> Deployment:
    """Read a deployment again."""
    deployment.refresh_from_db()
    return deployment


def consumers(state: str) -> list[tuple[str, str]]:
    """Return the (application, alias) of the consumers in this state, oldest first."""
    rows = ResourceConsumer.objects.filter(state=state).order_by("pk")
    return list(rows.values_list("workload__application__name", "alias"))


def outputs(place: Place, application: str = "billing") -> dict[str, Any]:
    """Return what the application gets from its resources."""
    return resolved_outputs(
        application=place.application(application), environment=place.environment, actor=None
    )
