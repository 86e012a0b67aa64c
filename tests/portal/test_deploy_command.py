from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from portal.management import progress
from provisioning.models import (
    Deployment,
    DeploymentStatus,
    Resource,
    Step,
    Worker,
)
from provisioning.workers.tasks import work
from tests.portal.commands import run
from tests.provisioning.place import QUEUE, Place, score_file

TARGET = ["--app", "shop", "--env", "dev"]
DATABASE = "  db:\n    type: postgres\n"


@pytest.fixture
def shop(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Return a place whose steps are worked off whenever a command pauses."""
    place.template("postgres", outputs={"host": False})
    place.application("shop")
    monkeypatch.setattr(time, "sleep", worker_at_work)
    return place


def worker_at_work(seconds: float) -> None:
    work(QUEUE)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    def write_file(resources: str) -> str:
        path = tmp_path / "score.yaml"
        path.write_text(score_file("web", resources))
        return str(path)

    return write_file


def test_without_wait_it_submits_and_ends(shop: Place, write: Callable[[str], str]) -> None:
    ran = run("deploy", write(DATABASE), *TARGET, "--commit", "abc123")

    deployment = Deployment.objects.get()
    assert ran.status == 0
    assert deployment.status == DeploymentStatus.RUNNING
    assert deployment.commit == "abc123"
    assert deployment.requested_by is not None
    assert deployment.requested_by.username == "conductor"
    assert "Plan: 1 to create." in ran.out
    assert ran.out.endswith(f"Deployment {deployment.pk} is running.\n")


def test_waiting_shows_each_step_and_the_end(shop: Place, write: Callable[[str], str]) -> None:
    ran = run("deploy", write(DATABASE), *TARGET, "--wait")

    assert ran.status == 0
    assert "✓ created postgres.default#web.db (" in ran.out
    assert f"Deployment {Deployment.objects.get().pk} succeeded in " in ran.out


def test_a_second_time_there_is_nothing_to_do(shop: Place, write: Callable[[str], str]) -> None:
    run("deploy", write(DATABASE), *TARGET, "--wait")

    ran = run("deploy", write(DATABASE), *TARGET, "--wait")

    assert ran.status == 0
    assert "Plan: nothing to do, 1 unchanged." in ran.out
    assert Step.objects.count() == 1


def test_a_failure_says_which_step_why_and_what_it_blocked(
    shop: Place, write: Callable[[str], str]
) -> None:
    file = write(
        "  db:\n    type: postgres\n    params: {fail: The quota is used up., permanent: true}\n"
        "  cache:\n    type: postgres\n    params: {at: '${resources.db.host}'}\n"
    )

    ran = run("deploy", file, *TARGET, "--wait")

    number = Deployment.objects.get().pk
    assert ran.status == 1
    assert "✗ failed postgres.default#web.db" in ran.out
    assert "⊘ blocked postgres.default#web.cache" in ran.out
    assert "postgres.default#web.db failed:\n  The quota is used up." in ran.err
    assert "│ The quota is used up." in ran.err
    assert "Not done, because it was blocked: postgres.default#web.cache." in ran.err
    assert f"manage.py logs {number}" in ran.err


def test_json_is_one_value_and_the_progress_goes_to_stderr(
    shop: Place, write: Callable[[str], str]
) -> None:
    ran = run("deploy", write(DATABASE), *TARGET, "--wait", "--format", "json")

    answer = json.loads(ran.out)
    assert answer["status"] == "succeeded"
    assert [(step["resource"], step["status"]) for step in answer["steps"]] == [
        ("postgres.default#web.db", "succeeded")
    ]
    assert "✓ created postgres.default#web.db" in ran.err


def test_it_says_that_no_worker_is_there(
    shop: Place, write: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", 0.0)

    ran = run("deploy", write(DATABASE), *TARGET, "--wait")

    assert ran.out.count("No worker takes the queue `default`: start one with `make worker`.") == 1


def test_it_does_not_miss_a_worker_that_is_there(
    shop: Place, write: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", 0.0)
    Worker.objects.create(host="here", pid=1, queues=[QUEUE], last_seen_at=timezone.now())

    ran = run("deploy", write(DATABASE), *TARGET, "--wait")

    assert "No worker" not in ran.out


def test_a_limit_ends_the_waiting_and_not_the_deployment(
    shop: Place, write: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)

    ran = run("deploy", write(DATABASE), *TARGET, "--wait", "--wait-timeout", "0.01")

    deployment = Deployment.objects.get()
    assert ran.status == 1
    assert f"Stopped waiting after 0.01 s; deployment {deployment.pk} goes on" in ran.err
    assert deployment.status == DeploymentStatus.RUNNING


def test_ctrl_c_says_that_the_deployment_goes_on(
    shop: Place, write: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)

    ran = run("deploy", write(DATABASE), *TARGET, "--wait")

    deployment = Deployment.objects.get()
    assert ran.status == 130
    assert f"manage.py logs {deployment.pk} --follow" in ran.err
    assert deployment.status == DeploymentStatus.RUNNING


def test_a_refused_plan_stores_nothing(shop: Place, write: Callable[[str], str]) -> None:
    ran = run("deploy", write("  db:\n    type: mongo\n"), *TARGET, "--wait")

    assert ran.status == 1
    assert "mongo" in ran.err
    assert not Deployment.objects.exists()
    assert not Resource.objects.exists()


def test_a_limit_that_is_no_time_is_a_wrong_call(shop: Place, write: Callable[[str], str]) -> None:
    ran = run("deploy", write(DATABASE), *TARGET, "--wait-timeout", "-1")

    assert ran.status == 2
    assert "-1 is not a number of seconds greater than 0." in ran.err
    assert not Deployment.objects.exists()


@pytest.mark.parametrize("commit", ["x" * 101, "\udcff"])
def test_a_commit_that_cannot_be_kept_is_a_wrong_call(
    shop: Place, write: Callable[[str], str], commit: str
) -> None:
    ran = run("deploy", write(DATABASE), *TARGET, "--commit", commit)

    assert ran.status == 2
    assert "A commit has 100 printable characters at most." in ran.err
    assert not Deployment.objects.exists()


def test_a_member_of_the_team_may_deploy(
    shop: Place, write: Callable[[str], str], alice: User
) -> None:
    shop.application("shop", alice)

    ran = run("deploy", write(DATABASE), *TARGET, "--as", "alice")

    assert ran.status == 0
    assert Deployment.objects.get().requested_by == alice


def test_a_stranger_may_not_deploy(shop: Place, write: Callable[[str], str], bob: User) -> None:
    ran = run("deploy", write(DATABASE), *TARGET, "--as", "bob")

    assert ran.status == 2
    assert not Deployment.objects.exists()


def test_a_plan_that_changed_is_shown_and_can_be_confirmed(
    shop: Place, write: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = "  cache:\n    type: postgres\n    reference: {mode: shared, name: cache}\n"
    shop.submit(shared + DATABASE)

    def another_joins(seconds: float) -> None:
        monkeypatch.setattr(time, "sleep", worker_at_work)
        shop.deploy(shared, application="billing")

    monkeypatch.setattr(time, "sleep", another_joins)

    asked = run("deploy", write(DATABASE), *TARGET, "--wait")

    number = Deployment.objects.filter(application__name="shop").latest("pk").pk
    assert asked.status == 1
    before, after = asked.out.split("The plan is a new one:")
    assert "Waiting: " in before
    assert "- destroy" in before
    assert "- destroy" not in after
    assert f"Agree to the new plan with: manage.py confirm {number}" in asked.err

    confirmed = run("confirm", str(number), "--wait")

    assert confirmed.status == 0
    assert f"Deployment {number} succeeded" in confirmed.out


def test_confirming_what_asks_for_nothing_fails(shop: Place, write: Callable[[str], str]) -> None:
    run("deploy", write(DATABASE), *TARGET, "--wait")

    ran = run("confirm", str(Deployment.objects.get().pk))

    assert ran.status == 1
    assert "asks for no confirmation" in ran.err


def test_it_ends_with_the_wishes_that_are_not_met(
    place: Place, write: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = [{"condition": "outputs.room >= wish.room", "message": "It has less room."}]
    place.template(
        "postgres", outputs={"room": False}, config={"outputs": {"room": 5}}, checks=checks
    )
    place.application("shop")
    monkeypatch.setattr(time, "sleep", worker_at_work)
    file = write(DATABASE + "    params: {room: 9}\n")

    ran = run("deploy", file, *TARGET, "--wait")
    again = json.loads(run("deploy", file, *TARGET, "--format", "json").out)

    told = "shop/web.db: private/shop/web/db/postgres.default is not as it asked: It has less room"
    assert ran.status == 0
    assert f"{told} (outputs.room is 5, wish.room is 9).\nDeployment" in ran.out
    assert again["wishes_not_met"] == [f"{told} (outputs.room is 5, wish.room is 9)."]
