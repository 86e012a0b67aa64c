from __future__ import annotations

import json

import pytest
from django.contrib.auth.models import User

from provisioning.models import Environment, PossibleOrphan, Resource, StateVersion
from tests.portal.commands import run
from tests.provisioning.place import Place
from tests.provisioning.services.test_state_versions import state, store

SHARED = "  db:\n    type: database\n    reference: {mode: shared, name: db}\n"


@pytest.fixture
def database(place: Place) -> Resource:
    """Return a resource with two states."""
    place.template("database", outputs={"host": False})
    place.deploy(SHARED)
    resource = place.resource("shared/db")
    outputs = {"host": {"value": "h"}, "pw": {"value": "s3cret", "sensitive": True}}
    store(resource, state(3))
    store(resource, state(4, outputs=outputs))
    return resource


def test_versions_are_listed(database: Resource) -> None:
    rows = json.loads(run("state", "list", "db", "--env", "dev", "--format", "json").out)
    assert [(row["number"], row["serial"], row["lineage"]) for row in rows] == [
        (2, 4, "a"),
        (1, 3, "a"),
    ]
    text = run("state", "list", "db", "--env", "dev").out.splitlines()
    assert text[0] == "db: managed, nowhere yet"
    assert text[1].split() == [
        "NUMBER", "SERIAL", "LINEAGE", "SIZE", "STORED_AT", "DEPLOYMENT", "STORED_BY",
    ]  # fmt: skip


def test_a_version_is_shown_without_values(database: Resource) -> None:
    shown = run("state", "show", "db", "--env", "dev").out
    assert shown == "Version 2, serial 4\n  output host\n  output pw (sensitive)\n"
    older = json.loads(run("state", "show", "db", "1", "--env", "dev", "--format", "json").out)
    assert (older["number"], older["outputs"]) == (1, [])


def test_a_state_is_pulled_whole(database: Resource) -> None:
    assert run("state", "pull", "db", "1", "--env", "dev").out.encode() == state(3) + b"\n"
    assert "s3cret" in run("state", "pull", "db", "--env", "dev").out


def test_a_version_is_restored(database: Resource) -> None:
    restored = run("state", "restore", "db", "1", "--env", "dev", "--reason", "It was better.")
    assert restored.out == (
        "Version 1 of the state of db is the newest again, as version 3. The next deployment runs "
        "its driver.\n"
    )
    assert StateVersion.objects.latest("number").serial == 5


def test_an_external_state_is_accepted(database: Resource) -> None:
    words = ["state", "accept", "db", "--env", "dev", "--reason", "It was moved."]
    assert run(*words).err.startswith("The state of db is kept at Conductor")
    Resource.objects.update(state_backend="s3", state_location="s3://b/k")
    assert run(*words).out == "The next deployment takes the state at s3://b/k as it is.\n"


def test_what_is_refused_is_told(database: Resource, alice: User) -> None:
    unknown = run("state", "restore", "db", "9", "--env", "dev", "--reason", "x")
    assert (unknown.status, unknown.err) == (1, "There is no version 9 of the state of db.\n")
    assert run("state", "restore", "db", "1", "--env", "dev").status == 2
    stranger = run("state", "pull", "db", "--env", "dev", "--as", "alice")
    assert (stranger.status, stranger.out) == (1, "")
    assert stranger.err == "There is no resource db in dev.\n"
    assert StateVersion.objects.count() == 2


def test_possible_orphans_are_listed_and_dismissed(database: Resource) -> None:
    nothing = run("resource", "orphans", "db", "--env", "dev")
    assert nothing.out == "Nothing is suspected beside the state of db.\n"
    PossibleOrphan.objects.create(
        resource=database, address="aws_vpc.a", type="aws_vpc", id_key="id", id_value="vpc-1"
    )
    assert run("resource", "orphans", "db", "--env", "dev").out == (
        'import {\n  to = aws_vpc.a\n  id = "vpc-1"\n}\n'
    )
    (row,) = json.loads(run("resource", "orphans", "db", "--env", "dev", "--format", "json").out)
    assert (row["address"], row["id_value"]) == ("aws_vpc.a", "vpc-1")
    refused = run("resource", "orphans", "db", "--env", "dev", "--dismiss")
    assert (refused.status, PossibleOrphan.objects.count()) == (1, 1)
    words = ["--dismiss", "--reason", "Deleted by hand."]
    done = run("resource", "orphans", "db", "--env", "dev", *words)
    assert done.out == "1 possible orphans of db forgotten.\n"
    assert not PossibleOrphan.objects.exists()


def test_an_environment_is_given_a_state_backend(place: Place) -> None:
    local = '{"type": "local", "path": "/srv/states"}'
    made = run("environment", "create", "prod", "--state-backend", '{"type": "http"}')
    assert made.status == 0
    changed = run("environment", "change", "prod", "--state-backend", local)
    assert changed.out == "New resources of prod keep their states: local.\n"
    assert Environment.objects.get(name="prod").state_backend == json.loads(local)


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        ("{", "--state-backend is not JSON"),
        ('{"type": "s3", "bucket": "b"}', "s3 needs region."),
        (
            '{"type": "s3", "bucket": "b", "region": "r", "secret_key": "sEcret"}',
            "secret_key holds a credential, and those are not kept in settings",
        ),
    ],
)
def test_a_wrong_state_backend_is_refused(place: Place, backend: str, said: str) -> None:
    for words in (("create", "prod"), ("change", "dev")):
        ran = run("environment", *words, "--state-backend", backend)
        assert ran.status in (1, 2)
        assert said in ran.err
        assert "sEcret" not in ran.err
    assert [each.state_backend for each in Environment.objects.all()] == [{"type": "managed"}]
