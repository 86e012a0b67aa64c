from __future__ import annotations

import json
from pathlib import Path

import pytest
from django.contrib.auth.models import User

from provisioning.models import Resource, ResourcePool
from provisioning.queue import doorbell
from provisioning.workers.tasks import work
from tests.portal.commands import run
from tests.provisioning.place import QUEUE, Place

CREATE = ["pool", "create", "warm", "--env", "dev", "--template", "database-template"]
SIZES = ["--team", "everybody", "--size", "1", "--max-size", "3"]
CLAIM = "  db:\n    type: database\n    pool: warm\n"


@pytest.fixture(autouse=True)
def templates(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.template("database", outputs={"host": False})
    place.application()
    monkeypatch.setattr(doorbell, "ring", lambda _queue, **_task: None)


def listed() -> dict[str, object]:
    (row,) = json.loads(run("pool", "list", "--env", "dev", "--format", "json").out)
    return dict(row)


def test_a_pool_is_created_filled_claimed_resized_and_drained(place: Place, tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("size: 1\n")

    created = run(*CREATE, *SIZES, "--params", str(params), "--claim-seconds", "60")

    assert created.out == "Created the pool warm: 1 ready, 3 at most.\n"
    pool = ResourcePool.objects.get()
    assert (pool.params, pool.claim_seconds, pool.max_concurrent) == ({"size": 1}, 60, 2)
    assert listed()["making"] == 1
    assert listed()["template"] == "database-template@1.0.0"
    work(QUEUE)
    place.deploy(CLAIM)
    resized = run("pool", "resize", "warm", "--env", "dev", "--size", "2")
    assert resized.out == "The pool warm keeps 2 ready, 3 at most.\n"
    work(QUEUE)
    assert {key: listed()[key] for key in ("size", "ready", "claimed")} == {
        "size": 2,
        "ready": 2,
        "claimed": 1,
    }
    drained = run("pool", "drain", "warm", "--env", "dev")
    assert drained.out == "The pool warm keeps none ready; claimed members stay.\n"
    work(QUEUE)
    assert {key: listed()[key] for key in ("size", "ready", "claimed", "leaving")} == {
        "size": 0,
        "ready": 0,
        "claimed": 1,
        "leaving": 0,
    }


def test_a_bad_size_is_refused(place: Place) -> None:
    ran = run(*CREATE, "--team", "everybody", "--size", "4", "--max-size", "3")

    assert (ran.status, ran.out) == (1, "")
    assert ran.err.endswith("4 of at most 3 cannot be.\n")
    assert ResourcePool.objects.count() == 0


def test_resizing_without_a_size_is_refused(place: Place) -> None:
    run(*CREATE, *SIZES)

    ran = run("pool", "resize", "warm", "--env", "dev")

    assert (ran.status, ran.out) == (2, "")
    assert ran.err == "Say what to change: --size, --max-size or both.\n"


def test_an_unknown_pool_is_refused(place: Place) -> None:
    run(*CREATE, *SIZES)

    ran = run("pool", "drain", "wram", "--env", "dev")

    assert ran.status == 2
    assert "Did you mean warm?" in ran.err


def test_others_than_the_owners_are_refused(place: Place, alice: User) -> None:
    ran = run(*CREATE, *SIZES, "--as", "alice")

    assert ran.status == 1
    assert "alice may not decide about the pool warm" in ran.err
    assert Resource.objects.count() == 0


def test_a_template_without_that_version_is_refused(place: Place) -> None:
    ran = run(*CREATE, *SIZES, "--version", "9.9.9")

    assert ran.status == 2
    assert "There are 1.0.0" in ran.err
