from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from django.contrib.auth.models import User

from provisioning.models import Deployment, Resource
from tests.portal.commands import run
from tests.provisioning.place import Place, score_file

TARGET = ["--app", "shop", "--env", "dev"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "score.yaml"
    path.write_text(score_file("web", "  db:\n    type: postgres\n    params: {size: 1}\n"))
    return path


@pytest.fixture
def shop(place: Place) -> Place:
    place.template("postgres", outputs={"host": False})
    place.application("shop")
    return place


def test_a_plan_is_shown_and_nothing_is_written(shop: Place, file: Path) -> None:
    ran = run("plan", str(file), *TARGET)

    assert ran.status == 0
    assert "+ create    postgres.default#web.db (postgres-template@1.0.0)" in ran.out
    assert "for web.db" in ran.out
    assert ran.out.endswith("Plan: 1 to create.\n")
    assert not Deployment.objects.exists()
    assert not Resource.objects.exists()


def test_a_change_is_shown_with_both_values(shop: Place, file: Path) -> None:
    shop.deploy("  db:\n    type: postgres\n    params: {size: 7}\n")

    ran = run("plan", str(file), *TARGET)

    assert "~ update" in ran.out
    assert "size: 7 → 1" in ran.out
    assert ran.out.endswith("Plan: 1 to update.\n")


def test_who_else_uses_a_shared_resource_is_shown(shop: Place, tmp_path: Path) -> None:
    shared = "  db:\n    type: postgres\n    reference: {mode: shared, name: main}\n"
    shop.deploy(shared, application="other", workload="api")
    path = tmp_path / "shared.yaml"
    path.write_text(score_file("web", shared))

    ran = run("plan", str(path), *TARGET)

    assert "= reuse     postgres.default#" in ran.out
    assert "also used by other/api" in ran.out


def test_who_gets_and_loses_credentials_is_shown(place: Place, tmp_path: Path) -> None:
    place.template(
        "postgres", outputs={"host": False}, config={"own": ["host"]}, uses=["consumers"]
    )
    shared = "  %s:\n    type: postgres\n    reference: {mode: shared, name: main}\n"
    place.deploy(shared % "db", application="other", workload="api")
    place.deploy(shared % "db")
    path = tmp_path / "shared.yaml"
    path.write_text(score_file("web", shared % "store"))

    ran = run("plan", str(path), *TARGET)

    assert "makes credentials of their own for shop/web.store" in ran.out
    assert "takes back the credentials of shop/web.db" in ran.out
    assert "Changes what" not in ran.out


def test_explain_shows_every_candidate(shop: Place, file: Path) -> None:
    ran = run("plan", str(file), *TARGET, "--explain")

    assert "✓ postgres-template by rule type postgres chosen: the most specific" in ran.out


def test_explain_shows_every_resource_that_was_considered(shop: Place, tmp_path: Path) -> None:
    shared = "  db:\n    type: postgres\n    sharing: shared\n    params: {size: 1}\n"
    shop.deploy(shared, application="fits")
    shop.deploy(shared.replace("size: 1", "size: 2"), application="differs")
    path = tmp_path / "shared.yaml"
    path.write_text(score_file("web", shared))

    lines = run("plan", str(path), *TARGET, "--explain").out.splitlines()

    told = [line.split(" ", 8)[-1] for line in lines if "of the team everybody" in line]
    assert told == [
        "of the team everybody for web.db taken: the best-ranked that fits",
        "of the team everybody for web.db not taken: its `size` is 2, and 1 is wanted",
    ]


def test_json_is_the_plan_itself(shop: Place, file: Path) -> None:
    plan = json.loads(run("plan", str(file), *TARGET, "--format", "json").out)

    assert [(each["uid"], each["action"]) for each in plan["resources"]] == [
        ("postgres.default#web.db", "create")
    ]
    assert len(plan["digest"]) == 64


def test_a_refused_file_fails_with_its_place(shop: Place, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(score_file("web", "  db:\n    type: mongo\n"))

    ran = run("plan", str(path), *TARGET)

    assert ran.status == 1
    assert f"{path}:9:" in ran.err
    assert "mongo" in ran.err
    assert ran.out == ""


def test_standard_input_is_read(shop: Place, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(file.read_text()))

    ran = run("plan", "-", *TARGET)

    assert ran.status == 0
    assert "postgres.default#web.db" in ran.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["FILE", "--app", "shpo", "--env", "dev"], "Did you mean shop?"),
        (["FILE", "--app", "shop", "--env", "prod"], "There is no environment prod."),
        (["missing.yaml", *TARGET], "missing.yaml cannot be read: No such file or directory."),
        (["-", "-", *TARGET], "only once"),
        (TARGET, "the following arguments are required: FILE"),
    ],
)
def test_a_wrong_call_ends_with_2(
    shop: Place, file: Path, arguments: list[str], message: str
) -> None:
    ran = run("plan", *[str(file) if each == "FILE" else each for each in arguments])

    assert ran.status == 2
    assert message in ran.err


def test_an_application_of_others_does_not_exist(shop: Place, file: Path, bob: User) -> None:
    ran = run("plan", str(file), *TARGET, "--as", "bob")

    assert ran.status == 2
    assert "There is no application shop." in ran.err
    assert "shop." in ran.err
    assert ran.out == ""
