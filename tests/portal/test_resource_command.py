from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from django.contrib.auth.models import User

from provisioning.models import Resource
from provisioning.workers.tasks import work
from tests.portal.commands import run
from tests.provisioning.place import QUEUE, Place

SHARED = "  db:\n    type: database\n    reference: {mode: shared, name: db}\n"


@pytest.fixture(autouse=True)
def templates(place: Place) -> None:
    place.template("database", outputs={"host": False, "password": True})


def test_the_policies_of_a_resource_are_set_and_named(place: Place) -> None:
    place.deploy(SHARED)

    said = [
        run("resource", *words, "--env", "dev").out
        for words in (("protect", "db"), ("retain", "db"), ("grace", "db", "60"))
    ]

    assert said == [
        "db is protected.\n",
        "db is kept when its last user has left.\n",
        "db outlives its last consumer by 60 s.\n",
    ]
    resource = Resource.objects.get()
    assert (resource.protected, resource.deletion_policy, resource.grace_seconds) == (
        True,
        "retain",
        60,
    )
    run("resource", "unprotect", "db", "--env", "dev")
    run("resource", "release", "db", "--env", "dev")
    run("resource", "grace", "db", "template", "--env", "dev")
    resource.refresh_from_db()
    assert (resource.protected, resource.deletion_policy, resource.grace_seconds) == (
        False,
        "delete",
        None,
    )


def test_the_unused_are_listed_with_what_keeps_them(place: Place) -> None:
    place.deploy(SHARED)
    run("resource", "retain", "db", "--env", "dev")
    place.teardown()

    rows = json.loads(run("resource", "unused", "--env", "dev", "--format", "json").out)

    assert [(row["name"], row["state"], row["kept_because"]) for row in rows] == [
        ("db", "active", "retained")
    ]


def test_adopt_and_detach(place: Place, tmp_path: Path) -> None:
    place.application()
    file = tmp_path / "outputs.yaml"
    file.write_text("host: db.example\npassword: s3cret-of-old\n")
    words = ["--type", "database", "--template", "database-template", "--team", "everybody"]

    adopted = run(
        "resource", "adopt", "--env", "dev", "--name", "db", *words, "--outputs", str(file)
    )

    assert adopted.out.startswith("Adopted db (")
    assert "Kept:        retained, adopted" in run("shared", "inspect", "db").out
    detached = run("resource", "detach", "db", "--env", "dev")
    assert detached.out == "Conductor forgot db; the thing itself stays.\n"
    assert Resource.objects.get().state == "deleted"


MODULE = 'resource "terraform_data" "it" {\n  for_each = toset(["a=b"])\n}\n'
IMPORT = ["resource", "adopt", "--env", "dev", "--name", "old", "--type", "thing", "--template"]
IMPORT += ["thing-template", "--team", "everybody"]


@pytest.mark.terraform
def test_import_what_exists(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.application()
    place.template("thing", driver="terraform", content={"main.tf": MODULE})
    monkeypatch.setattr(time, "sleep", lambda seconds: work(QUEUE))

    ran = run(*IMPORT, "--import", 'terraform_data.it["a=b"]=/id=1', "--wait")

    assert (ran.status, ran.err) == (0, "")
    assert 'takes in what exists: terraform_data.it["a=b"]' in ran.out
    assert "✓ ready thing.default#old (" in ran.out
    resource = Resource.objects.get()
    assert (resource.key, resource.state) == ("shared/old", "active")
    history = run("resource", "history", "old", "--env", "dev").out
    assert 'Take in what exists: terraform_data.it["a=b"] is /id=1.' in history


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        ([], 2, "one of the arguments --outputs --import is required"),
        (["--outputs", "x", "--import", "a.b=c"], 2, "not allowed with argument --outputs"),
        (["--import", "a.b"], 2, "a.b is not written as ADDRESS=ID."),
        (["--import", "a.b=c"], 1, "a.b cannot be imported: the module declares no a.b."),
        (["--outputs", "x", "--allow-changes"], 2, "--allow-changes and --wait are for --import"),
    ],
)
def test_an_import_that_cannot_be_is_refused(
    place: Place, words: list[str], status: int, told: str
) -> None:
    place.application()
    place.template("thing", driver="terraform", content={"main.tf": MODULE})

    ran = run(*IMPORT, *words)

    assert (ran.status, told in ran.err) == (status, True)
    assert not Resource.objects.exists()


@pytest.mark.parametrize("text", ["- a\n", "host: [\n", "host: s3cret\nhost: twice\n", ""])
def test_a_file_of_outputs_that_is_no_map_is_refused_without_its_values(
    place: Place, tmp_path: Path, text: str
) -> None:
    place.application()
    file = tmp_path / "outputs.yaml"
    file.write_text(text)
    words = ["--type", "database", "--template", "database-template", "--team", "everybody"]

    ran = run("resource", "adopt", "--env", "dev", "--name", "db", *words, "--outputs", str(file))

    assert (ran.status, ran.err) == (
        2,
        f"{file} must hold one map of names to values, as YAML or JSON.\n",
    )
    assert not Resource.objects.exists()


def test_an_unknown_name_is_answered_with_the_likeliest(place: Place) -> None:
    place.deploy(SHARED.replace("name: db", "name: orders-db"))

    ran = run("resource", "protect", "order-db", "--env", "dev")

    assert (ran.status, ran.err) == (
        1,
        "There is no resource order-db in dev. Did you mean orders-db?\n",
    )
    assert not Resource.objects.get().protected


def test_a_stranger_sees_and_does_nothing(place: Place, alice: User) -> None:
    place.deploy(SHARED)

    for words in (("destroy", "db"), ("history", "db"), ("protect", "db"), ("detach", "db")):
        ran = run("resource", *words, "--env", "dev", "--as", "alice")
        assert (ran.status, ran.err) == (1, "There is no resource db in dev.\n")
    assert Resource.objects.get().state == "active"


def test_the_history_goes_over_all_lives_of_a_name(place: Place) -> None:
    place.deploy(SHARED)
    place.teardown()
    place.deploy(SHARED)
    run("outputs", "--app", "shop", "--env", "dev", "--reveal")

    rows = json.loads(run("resource", "history", "db", "--env", "dev", "--format", "json").out)

    of_resource = [row["what"] for row in rows if row["subject"] == "shared/db"]
    assert of_resource == [
        "resource.provisioning",
        "resource.active",
        "resource.deleting",
        "resource.deleted",
        "resource.provisioning",
        "resource.active",
        "outputs.revealed",
    ]
    assert {row["deployment"] for row in rows if row["what"].startswith("deployment.")} == {
        row["deployment"] for row in rows if row["deployment"]
    }
    assert not any("fake-password" in str(row) for row in rows)
