from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from provisioning.models import Deployment, Resource, ResourceConsumer
from provisioning.services.people import NotAllowedError, system_user
from provisioning.services.resources.destroy import destroy_unused
from provisioning.services.resources.grace import list_unused
from provisioning.services.resources.policy import (
    PolicyError,
    protect_resource,
    retain_resource,
    set_grace,
)
from tests.provisioning.place import Place

KEY = "shared/cache"
SHARED = "  cache:\n    type: cache\n    reference: {mode: shared, name: cache}\n"


@pytest.fixture(autouse=True)
def templates(place: Place) -> None:
    place.template("cache", outputs={"host": False})


def graceful(place: Place, seconds: int = 600) -> Resource:
    """Return a shared resource with a grace period and one consumer, the application shop."""
    place.deploy(SHARED)
    return set_grace(resource=place.resource(KEY), seconds=seconds, actor=system_user())


def expire() -> None:
    """Let the time of every grace pass."""
    Resource.objects.filter(grace_until__isnull=False).update(
        grace_until=timezone.now() - timedelta(seconds=1)
    )


def test_an_unused_shared_resource_is_kept_for_its_grace(place: Place, ledger: Path) -> None:
    graceful(place)

    teardown = place.teardown()
    destroy_unused()

    planned = teardown.plan["resources"][0]
    assert (planned["action"], planned["reason"]) == (
        "release",
        "nobody uses it; destroyed in 600 s unless somebody joins",
    )
    resource = place.resource(KEY)
    assert resource.state == "active"
    assert resource.grace_until is not None
    left = resource.grace_until - timezone.now()
    assert timedelta(seconds=590) < left <= timedelta(seconds=600)
    assert "destroy" not in ledger.read_text()
    assert not Deployment.objects.filter(kind="maintenance").exists()


def test_after_its_grace_the_sweeper_destroys_it_by_maintenance(place: Place, ledger: Path) -> None:
    resource = graceful(place)
    place.teardown()
    expire()

    destroy_unused()
    destroy_unused()

    deployment = place.done(Deployment.objects.get(kind="maintenance"))
    assert (deployment.status, deployment.application, deployment.forced, deployment.reason) == (
        "succeeded",
        None,
        False,
        "Its grace period ended, and nobody had joined.",
    )
    assert place.states() == {KEY: "deleted"}
    assert ledger.read_text().count(f"destroy {resource.pk}") == 1


def test_whoever_joins_during_the_grace_ends_it(place: Place, ledger: Path) -> None:
    resource = graceful(place)
    place.teardown()

    joined = place.deploy(SHARED, application="other")
    expire()
    destroy_unused()

    assert joined.plan["resources"][0]["action"] == "reuse"
    assert place.resource(KEY).pk == resource.pk
    assert place.resource(KEY).grace_until is None
    assert place.states() == {KEY: "active"}
    assert not Deployment.objects.filter(kind="maintenance").exists()


def test_a_grace_that_passed_without_a_sweep_can_still_be_joined(place: Place) -> None:
    resource = graceful(place)
    place.teardown()
    expire()

    place.deploy(SHARED, application="other")
    destroy_unused()

    assert (place.resource(KEY).pk, place.states()) == (resource.pk, {KEY: "active"})


def test_a_join_after_the_sweeper_waits_and_makes_a_new_one(place: Place) -> None:
    old = graceful(place)
    place.teardown()
    expire()
    destroy_unused()

    joined = place.submit(SHARED, application="other")

    assert joined.status == "waiting"
    assert place.done(joined).status == "succeeded"
    new = place.resource(KEY)
    assert (new.state, new.pk != old.pk) == ("active", True)
    old.refresh_from_db()
    assert old.state == "deleted"


@pytest.mark.parametrize("keep", [protect_resource, retain_resource])
def test_what_is_kept_outlives_its_grace(place: Place, keep: object) -> None:
    resource = graceful(place)
    if keep is protect_resource:
        protect_resource(resource=resource, protected=True, actor=system_user())
    else:
        retain_resource(resource=resource, retain=True, actor=system_user())
    place.teardown()
    expire()

    destroy_unused()

    assert place.states() == {KEY: "active"}
    assert not Deployment.objects.filter(kind="maintenance").exists()


@pytest.mark.parametrize("keep", [protect_resource, retain_resource])
def test_the_grace_of_what_is_kept_begins_when_it_is_kept_no_more(
    place: Place, keep: Callable[..., Resource]
) -> None:
    field = "protected" if keep is protect_resource else "retain"
    resource = graceful(place)
    place.teardown()
    keep(resource=resource, actor=system_user(), **{field: True})
    destroy_unused()
    assert place.resource(KEY).grace_until is None

    place.deploy(SHARED)
    place.teardown()
    assert place.resource(KEY).grace_until is None
    keep(resource=resource, actor=system_user(), **{field: False})
    destroy_unused()

    until = place.resource(KEY).grace_until
    assert until is not None
    assert until - timezone.now() > timedelta(seconds=590)
    assert place.states() == {KEY: "active"}


def test_a_resource_that_lost_its_user_otherwise_gets_its_grace_from_the_sweeper(
    place: Place,
) -> None:
    graceful(place)
    ResourceConsumer.objects.update(state="withdrawn")

    destroy_unused()

    assert place.resource(KEY).grace_until is not None
    assert place.states() == {KEY: "active"}


def test_a_destroy_that_failed_is_not_tried_again_at_once(place: Place) -> None:
    place.deploy(SHARED + "    params: {fail_destroy: broken, permanent: true}\n")
    ResourceConsumer.objects.update(state="withdrawn")
    set_grace(resource=place.resource(KEY), seconds=0, actor=system_user())
    destroy_unused()
    destroy_unused()
    tried = Deployment.objects.get(kind="maintenance")
    tried.steps.update(status="failed")
    Resource.objects.update(state="failed")
    place.done(tried)

    destroy_unused()
    expire()
    destroy_unused()

    assert Deployment.objects.filter(kind="maintenance").count() == 1


def test_retain_survives_the_next_deployment(place: Place) -> None:
    resource = graceful(place)
    retain_resource(resource=resource, retain=True, actor=system_user())

    place.deploy(SHARED + "    params: {size: 2}\n")

    assert place.resource(KEY).deletion_policy == "retain"
    place.teardown()
    assert place.states() == {KEY: "active"}


def test_unused_resources_are_listed_with_what_keeps_them(place: Place) -> None:
    graceful(place)
    assert list_unused(environment=place.environment, actor=system_user()) == []

    place.teardown()

    assert [
        each.key for each in list_unused(environment=place.environment, actor=system_user())
    ] == [KEY]


def test_a_private_resource_that_is_kept_no_more_goes(place: Place) -> None:
    place.deploy("  own:\n    type: cache\n")
    own = Resource.objects.get()
    protect_resource(resource=own, protected=True, actor=system_user())
    place.teardown()
    destroy_unused()
    assert place.states() == {own.key: "active"}

    protect_resource(resource=own, protected=False, actor=system_user())
    destroy_unused()
    place.done(Deployment.objects.get(kind="maintenance"))

    assert place.states() == {own.key: "deleted"}


@pytest.mark.parametrize("status", ["failed", "blocked", "cancelled"])
def test_a_destroy_that_did_not_happen_is_not_tried_again_at_once(
    place: Place, status: str
) -> None:
    place.deploy("  own:\n    type: cache\n")
    teardown = place.teardown()
    Resource.objects.update(state="failed")
    teardown.steps.update(status=status)

    destroy_unused()
    assert not Deployment.objects.filter(kind="maintenance").exists()
    teardown.steps.update(finished_at=timezone.now() - timedelta(hours=2))
    destroy_unused()

    assert Deployment.objects.get(kind="maintenance").resource == Resource.objects.get()


def test_a_private_resource_has_no_grace(place: Place) -> None:
    place.deploy("  own:\n    type: cache\n")

    with pytest.raises(PolicyError, match="only shared resources"):
        set_grace(resource=Resource.objects.get(), seconds=5, actor=system_user())

    assert Resource.objects.get().grace_seconds is None


def test_others_than_the_owners_decide_nothing(place: Place, alice: User) -> None:
    place.deploy(SHARED)
    resource = place.resource(KEY)

    with pytest.raises(NotAllowedError):
        protect_resource(resource=resource, protected=True, actor=alice)
    with pytest.raises(NotAllowedError):
        retain_resource(resource=resource, retain=True, actor=alice)
    with pytest.raises(NotAllowedError):
        set_grace(resource=resource, seconds=9, actor=alice)

    resource.refresh_from_db()
    assert (resource.protected, resource.deletion_policy, resource.grace_seconds) == (
        False,
        "delete",
        None,
    )
