"""Two environments of one organisation, and wishes that reach from one to the other."""

from __future__ import annotations

import pytest

from provisioning.models import (
    Deployment,
    Resource,
    ResourceConsumer,
)
from tests.provisioning.place import Place

WIDE = """\
  cache:
    type: cache
    matching: {scope: organisation}
    params: {size: 1}
"""
MERGED = WIDE.replace("scope: organisation", "scope: organisation, matchOn: []").replace(
    "type: cache", "type: store"
)
BUCKET = WIDE.replace("type: cache", "type: bucket")
FOLLOWS = "  db:\n    type: database\n    params: {of: '${resources.cache.host}'}\n"
NARROW = WIDE.replace("scope: organisation", "scope: environment")
USED = WIDE + "  db:\n    type: database\n    params: {of: '${resources.cache.host}'}\n"


@pytest.fixture
def dev(place: Place) -> Place:
    place.template("cache", outputs={"host": False, "password": True})
    place.template("database", outputs={"host": False})
    place.template(
        "store",
        outputs={"host": False},
        merge_rules={"size": {"rule": "maximum"}, "of": {"rule": "union"}},
        params_schema={"type": "object", "properties": {"size": {}, "tier": {}, "of": {}}},
    )
    place.template("policy")
    place.template(
        "bucket",
        outputs={"host": False},
        co_provision=[{"type": "policy", "params": {"from": "${self.host}"}}],
    )
    return place


@pytest.fixture
def staging(dev: Place) -> Place:
    return dev.beside("staging")


def used_by(place: Place, application: str = "shop", alias: str = "cache") -> Resource:
    """Return the resource that an alias of an application uses in an environment."""
    return ResourceConsumer.objects.get(
        workload__application__name=application,
        workload__environment=place.environment,
        alias=alias,
        state="active",
    ).resource


def fresh(deployment: Deployment) -> Deployment:
    deployment.refresh_from_db()
    return deployment


def live() -> dict[tuple[str, str], str]:
    """Return the states of the live resources by environment and the beginning of the key."""
    rows = Resource.objects.exclude(state="deleted").select_related("environment")
    return {(each.environment.name, each.key.split("/")[0]): each.state for each in rows}
