"""How much a decision has to itself."""

from __future__ import annotations

from collections import Counter

import pytest
from django.db import connection, transaction

from provisioning.models import Deployment, Environment, Resource
from provisioning.services.locks import lock_environment
from provisioning.services.people import system_user
from provisioning.services.publishing import publish_resource
from tests.provisioning.place import Place, new_place

pytestmark = pytest.mark.django_db(transaction=True)

WIDE = """\
  cache:
    type: cache
    matching: {scope: organisation}
"""
SHARED, ALONE = "ShareLock", "ExclusiveLock"


@pytest.fixture
def dev(place: Place) -> Place:
    place.template("cache", outputs={"host": False})
    return place


def held(environment: Environment, *scope: str) -> Counter[str]:
    """Count, by mode, the advisory locks that a decision takes and keeps."""
    with transaction.atomic(), connection.cursor() as cursor:
        lock_environment(environment, *scope)
        cursor.execute(
            "SELECT mode FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
        )
        return Counter(mode for (mode,) in cursor.fetchall())


def test_a_decision_in_one_environment_shares_the_organisation(dev: Place) -> None:
    dev.deploy(WIDE)

    assert held(dev.environment) == {SHARED: 1, ALONE: 1}


def test_looking_further_needs_the_organisation_alone(dev: Place) -> None:
    assert held(dev.environment, "organisation") == {ALONE: 2}


def test_linked_environments_need_the_organisation_alone_until_the_link_ends(dev: Place) -> None:
    staging, other = dev.beside("staging"), dev.beside("other")
    staging.deploy(WIDE, application="pay")
    dev.deploy(WIDE)

    assert held(dev.environment) == held(staging.environment) == {ALONE: 2}
    assert held(other.environment) == {SHARED: 1, ALONE: 1}
    dev.teardown()
    assert held(dev.environment) == held(staging.environment) == {SHARED: 1, ALONE: 1}


def test_what_waits_in_the_environment_is_decided_with_it(dev: Place) -> None:
    waiting = dev.deploy(WIDE)
    Deployment.objects.filter(pk=waiting.pk).update(status="waiting")

    assert held(dev.environment) == {ALONE: 2}


def test_the_scope_global_needs_every_organisation_that_has_published(dev: Place) -> None:
    rival = new_place("rival")
    assert held(rival.environment, "global") == {ALONE: 3}  # it, the platform, the environment

    dev.deploy(WIDE)
    publish_resource(resource=Resource.objects.get(), published=True, actor=system_user())
    assert held(rival.environment, "global") == {ALONE: 4}
    assert held(rival.environment) == {SHARED: 1, ALONE: 1}

    Resource.objects.update(sharing_policy="open")
    rival.deploy(WIDE.replace("organisation", "global"))
    assert held(rival.environment) == held(dev.environment) == {ALONE: 3}
