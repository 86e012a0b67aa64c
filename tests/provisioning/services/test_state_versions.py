from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.db.models.functions import Now

from provisioning.drivers.terraform.state import State
from provisioning.models import AuditEvent, Resource, StateLock, StateVersion, Step
from provisioning.services.people import NotAllowedError
from provisioning.services.state.versions import (
    StateRefusedError,
    StateVersionError,
    UnknownVersionError,
    accept_state,
    list_versions,
    newest_state,
    pull_state,
    restore_version,
    show_version,
    store_version,
)
from tests.provisioning.place import Place

SHARED = "  db:\n    type: database\n    reference: {mode: shared, name: db}\n"


def state(serial: int, lineage: str = "a", **more: Any) -> bytes:
    return json.dumps({"serial": serial, "lineage": lineage, **more}).encode()


def store(resource: Resource, raw: bytes, **writer: Any) -> int:
    read = State.read(raw)
    assert read is not None
    return store_version(
        resource_id=resource.pk, state=raw, serial=read.serial, lineage=read.lineage, **writer
    )


@pytest.fixture
def resource(place: Place, charlie: User) -> Resource:
    """Return a resource of charlie's team, whose driver has run."""
    place.team_named("everybody", charlie)
    place.template("database", outputs={"host": False})
    place.deploy(SHARED)
    resource = place.resource("shared/db")
    resource.state_backend = "managed"
    resource.save()
    return resource


def test_versions_are_numbered_and_the_oldest_go(
    resource: Resource, settings: LazySettings
) -> None:
    settings.CONDUCTOR_STATE_VERSIONS = 3
    assert [store(resource, state(serial)) for serial in (3, 4, 7, 8, 20)] == [1, 2, 3, 4, 5]
    assert kept() == [(3, 7), (4, 8), (5, 20)]


def kept() -> list[tuple[int, int]]:
    return list(StateVersion.objects.order_by("number").values_list("number", "serial"))


def test_the_state_before_an_apply_of_many_versions_can_be_restored(
    resource: Resource, place: Place, charlie: User, settings: LazySettings
) -> None:
    settings.CONDUCTOR_STATE_VERSIONS = 3
    steps = [Step.objects.get(), place.deploy(SHARED + "    params: {a: 1}\n").steps.get()]
    for step, serials in zip(steps, (range(1, 6), range(6, 26)), strict=True):
        for serial in serials:
            store(resource, state(serial), step=step.pk, attempt=1)

    assert kept() == [(5, 5), (23, 23), (24, 24), (25, 25)]
    restore_version(resource=resource, number=5, reason="x", actor=charlie)
    assert newest_state(resource.pk) == state(26)


def test_of_the_last_writers_alone_the_last_version_is_kept(
    resource: Resource, place: Place, settings: LazySettings
) -> None:
    settings.CONDUCTOR_STATE_VERSIONS = 2
    serial = 0
    first = Step.objects.get()
    for writer in ({"step": first.pk}, {"person": "alice"}, {"person": "bob"}, {"step": first.pk}):
        for _ in range(4):
            serial += 1
            store(resource, state(serial), **writer)

    assert kept() == [(12, 12), (15, 15), (16, 16)]


def test_one_version_more_takes_no_query_while_none_is_too_many(
    resource: Resource, settings: LazySettings, django_assert_num_queries: Any
) -> None:
    settings.CONDUCTOR_STATE_VERSIONS = 2
    for serial in (1, 2):
        with django_assert_num_queries(4):  # the newest one; and the new one, with its savepoint
            store(resource, state(serial))
    with django_assert_num_queries(5):
        store(resource, state(3))


def test_the_same_bytes_are_accepted_again_and_stored_once(resource: Resource) -> None:
    assert [store(resource, state(3)) for _ in range(2)] == [1, 1]
    assert StateVersion.objects.count() == 1


def test_the_same_bytes_are_recognised_after_the_signing_key_went(
    resource: Resource, settings: LazySettings
) -> None:
    store(resource, state(3))
    StateVersion.objects.update(digest="of a former key")
    assert store(resource, state(3)) == 1


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (
            state(5, x=1),
            "of lineage a and serial 5, and the stored one is of lineage a and serial 5",
        ),
        (state(4), "of lineage a and serial 4, and the stored one is of lineage a and serial 5"),
        (
            state(9, "b"),
            "of lineage b and serial 9, and the stored one is of lineage a and serial 5",
        ),
    ],
)
def test_a_state_that_does_not_follow_is_refused_with_both_named(
    resource: Resource, raw: bytes, said: str
) -> None:
    store(resource, state(5))
    with pytest.raises(StateRefusedError, match=said) as refused:
        store(resource, raw)
    assert refused.value.permanent is True
    assert newest_state(resource.pk) == state(5)


def test_states_of_other_drivers_have_no_serial(resource: Resource) -> None:
    for raw in (b"{}", b'{"a": 1}', b"{}"):
        store_version(resource_id=resource.pk, state=raw)
    assert newest_state(resource.pk) == b"{}"
    assert StateVersion.objects.count() == 3


def test_an_owner_restores_an_older_version(resource: Resource, charlie: User) -> None:
    old = '{"version": 4, "serial": 3, "lineage": "a", "n": 1.10, "x": {"serial": 1}}'
    store(resource, old.encode())
    store(resource, state(8))
    Resource.objects.update(applied_mac="m")

    version = restore_version(
        resource=resource, number=1, reason="The upgrade broke it.", actor=charlie
    )

    assert (version.number, version.serial, version.lineage) == (3, 9, "a")
    assert version.stored_by == "charlie"
    assert newest_state(resource.pk) == old.replace('"serial": 3', '"serial": 9').encode()
    resource.refresh_from_db()
    assert (resource.applied_mac, resource.applied_spec_digest) == ("", "")
    event = AuditEvent.objects.get(action="state.restored")
    assert (event.actor, event.reason) == ("charlie", "Version 1: The upgrade broke it.")


def test_the_next_deployment_runs_the_driver_after_a_restore(
    resource: Resource, place: Place, charlie: User
) -> None:
    store(resource, state(1))
    store(resource, state(2))
    restore_version(resource=resource, number=1, reason="x", actor=charlie)
    deployment = place.deploy(SHARED)
    assert place.steps(deployment) == {"shared/db": ("ensure", "succeeded", True)}


def test_a_state_of_another_driver_is_restored_as_it_is(resource: Resource, charlie: User) -> None:
    for raw in (b'{"a": 1}', b"{}"):
        store_version(resource_id=resource.pk, state=raw)
    restore_version(resource=resource, number=1, reason="x", actor=charlie)
    assert newest_state(resource.pk) == b'{"a": 1}'


@pytest.mark.parametrize("status", ["pending", "running", "recovering"])
def test_nothing_is_restored_while_a_step_runs_or_waits(
    resource: Resource, charlie: User, status: str
) -> None:
    store(resource, state(1))
    store(resource, state(2))
    Step.objects.update(status=status, lease_until=Now())
    with pytest.raises(StateVersionError, match=r"Deployment \d+ is at work on db, or about to be"):
        restore_version(resource=resource, number=1, reason="x", actor=charlie)
    assert newest_state(resource.pk) == state(2)
    assert not AuditEvent.objects.filter(action="state.restored").exists()


def test_nothing_is_restored_while_somebody_holds_the_state(
    resource: Resource, charlie: User
) -> None:
    store(resource, state(1))
    store(resource, state(2))
    StateLock.objects.create(
        resource=resource, lock_id="l", info={}, person=charlie, expires_at=Now() + timedelta(1)
    )
    with pytest.raises(StateVersionError, match="The state of db is locked by charlie"):
        restore_version(resource=resource, number=1, reason="x", actor=charlie)


@pytest.mark.parametrize(
    ("fields", "number", "reason", "said"),
    [
        ({}, 1, " ", "Say why the older state is restored"),
        ({}, 7, "x", "There is no version 7 of the state of db."),
        ({}, 2, "x", "Version 2 is the newest one already."),
        ({"state": "deleted"}, 1, "x", "db is deleted."),
        (
            {"state_backend": "s3", "state_location": "s3://b/k"},
            1,
            "x",
            "The state of db is kept at s3://b/k: restore it there.",
        ),
    ],
)
def test_what_cannot_be_restored_is_told(
    resource: Resource, charlie: User, fields: dict[str, str], number: int, reason: str, said: str
) -> None:
    store(resource, state(1))
    store(resource, state(2))
    Resource.objects.update(**fields)
    with pytest.raises(StateVersionError, match=said):
        restore_version(resource=resource, number=number, reason=reason, actor=charlie)
    assert newest_state(resource.pk) == state(2)


def test_others_than_owners_neither_see_nor_restore(resource: Resource, alice: User) -> None:
    store(resource, state(1))
    store(resource, state(2))
    for act in (
        lambda: list_versions(resource=resource, actor=alice),
        lambda: show_version(resource=resource, actor=alice),
        lambda: pull_state(resource=resource, actor=alice),
        lambda: restore_version(resource=resource, number=1, reason="x", actor=alice),
    ):
        with pytest.raises(NotAllowedError, match="that is for the owners of the team everybody"):
            act()
    assert newest_state(resource.pk) == state(2)
    assert not AuditEvent.objects.filter(action__startswith="state.").exists()


def test_what_a_version_holds_is_named_without_values(resource: Resource, charlie: User) -> None:
    thing = {"mode": "managed", "type": "db", "name": "it"}
    raw = state(
        1,
        outputs={"host": {"value": "h"}, "password": {"value": "s3cret", "sensitive": True}},
        resources=[
            {**thing, "instances": [{"attributes": {"p": "s3cret"}}]},
            {**thing, "module": "module.m", "instances": [{"index_key": "k"}, {"index_key": 0}]},
            {**thing, "mode": "data", "instances": [{}]},
        ],
    )
    store(resource, raw)
    version, contents = show_version(resource=resource, actor=charlie)
    assert version.number == 1
    assert contents.resources == ("db.it", 'module.m.db.it["k"]', "module.m.db.it[0]")
    assert (contents.outputs, contents.sensitive) == (("host", "password"), ("password",))
    assert "s3cret" not in repr(contents)


def test_a_whole_state_is_revealed_to_its_owner_and_that_is_told(
    resource: Resource, charlie: User
) -> None:
    store(resource, state(1))
    store(resource, state(2))
    assert pull_state(resource=resource, number=1, actor=charlie) == state(1)
    event = AuditEvent.objects.get(action="state.pulled")
    assert (event.actor, event.subject_id, event.reason) == (
        "charlie",
        str(resource.pk),
        "Version 1.",
    )


def test_an_owner_accepts_the_external_state_that_is_there(
    resource: Resource, charlie: User, alice: User
) -> None:
    known = {"config": {"bucket": "b"}, "lineage": "a", "serial": "7"}
    Resource.objects.update(state_backend="s3", state_metadata=known, applied_mac="m")
    resource.refresh_from_db()
    with pytest.raises(NotAllowedError):
        accept_state(resource=resource, reason="x", actor=alice)
    with pytest.raises(StateVersionError, match="Say why"):
        accept_state(resource=resource, reason="", actor=charlie)
    resource.refresh_from_db()
    assert resource.state_metadata == known
    accept_state(resource=resource, reason="It was moved by hand.", actor=charlie)
    resource.refresh_from_db()
    assert (resource.state_metadata, resource.applied_mac) == ({"config": {"bucket": "b"}}, "")
    assert AuditEvent.objects.get(action="state.accepted").reason == "It was moved by hand."


def test_a_managed_state_cannot_be_exchanged(resource: Resource, charlie: User) -> None:
    with pytest.raises(StateVersionError, match="kept at Conductor: restore a version of it"):
        accept_state(resource=resource, reason="x", actor=charlie)


def test_a_state_that_is_elsewhere_is_said_to_be(resource: Resource, charlie: User) -> None:
    Resource.objects.update(state_backend="s3", state_location="s3://b/k")
    resource.refresh_from_db()
    with pytest.raises(UnknownVersionError, match="not kept at Conductor, but at s3://b/k"):
        pull_state(resource=resource, actor=charlie)
