from __future__ import annotations

import json
from pathlib import Path

import pytest
from django.contrib.auth.models import User

from provisioning.models import Deployment
from provisioning.workers.tasks import claim
from tests.portal.commands import run
from tests.provisioning.place import Place, score_file

DATABASE = "  db:\n    type: postgres\n"
FAILS = "  db:\n    type: postgres\n    params: {fail: The quota is used up., permanent: true}\n"


@pytest.fixture
def shop(place: Place, alice: User) -> Place:
    """Return a place where alice's team has the application shop."""
    place.template("postgres", outputs={"host": False})
    place.application("shop", alice)
    return place


def fresh(deployment: Deployment) -> Deployment:
    deployment.refresh_from_db()
    return deployment


def test_the_command_cancels_and_says_what_became_of_it(shop: Place) -> None:
    deployment = shop.submit(DATABASE)

    ran = run("cancel", str(deployment.pk), "--reason", "Wrong region.", "--as", "alice")

    assert (ran.status, ran.out) == (
        0,
        (
            f"Deployment {deployment.pk} is cancelled. Cancelled by alice: Wrong region.\n"
            "Not begun: private/shop/web/db/postgres.default.\n"
        ),
    )
    assert fresh(deployment).status == "cancelled"


def test_the_command_says_that_tools_still_run(shop: Place) -> None:
    deployment = shop.submit(DATABASE)
    claim("default")

    ran = run("cancel", str(deployment.pk), "--as", "alice")

    assert ran.out == (
        f"Deployment {deployment.pk} is cancelling. Cancelled by alice.\n"
        "It ends when the tools that run for it have stopped.\n"
    )


def test_the_command_answers_in_json(shop: Place) -> None:
    deployment = shop.submit(DATABASE)

    ran = run("cancel", str(deployment.pk), "--format", "json")

    answer = json.loads(ran.out)
    assert (answer["id"], answer["status"]) == (deployment.pk, "cancelled")
    assert [step["status"] for step in answer["steps"]] == ["cancelled"]


def test_the_command_refuses_what_has_ended(shop: Place) -> None:
    deployment = shop.deploy(DATABASE)

    ran = run("cancel", str(deployment.pk), "--as", "alice")

    assert (ran.status, ran.err) == (
        1,
        f"Deployment {deployment.pk} has ended already (succeeded): there is nothing to cancel.\n",
    )
    assert fresh(deployment).status == "succeeded"


def test_to_others_there_is_nothing_to_cancel(shop: Place, bob: User) -> None:
    deployment = shop.submit(DATABASE)

    ran = run("cancel", str(deployment.pk), "--as", "bob")

    assert (ran.status, ran.err) == (2, f"There is no deployment {deployment.pk}.\n")
    assert fresh(deployment).status == "running"


def test_the_command_retries_and_prints_the_new_deployment(shop: Place, alice: User) -> None:
    deployment = shop.submit(DATABASE)
    run("cancel", str(deployment.pk), "--as", "alice")

    ran = run("retry", str(deployment.pk), "--as", "alice", "--timeout", "2h")

    retry = Deployment.objects.get(retry_of=deployment)
    assert ran.status == 0
    assert "Plan: 1 to create." in ran.out
    assert ran.out.endswith(f"Deployment {retry.pk} is running.\n")
    assert (retry.requested_by, retry.timeout_seconds) == (alice, 7200)


def test_the_command_refuses_to_retry_a_success(shop: Place) -> None:
    deployment = shop.deploy(DATABASE)

    ran = run("retry", str(deployment.pk), "--as", "alice")

    assert ran.status == 1
    assert ran.err.startswith(f"Deployment {deployment.pk} is succeeded: only one that failed")
    assert Deployment.objects.count() == 1


def test_a_failure_names_the_command_that_retries(shop: Place, tmp_path: Path) -> None:
    path = tmp_path / "score.yaml"
    path.write_text(score_file("web", FAILS))
    deployment = shop.deploy(FAILS)

    ran = run("logs", str(deployment.pk), "--follow")

    assert f"The same once more: manage.py retry {deployment.pk}" in ran.err


def test_deploy_takes_a_time_out_and_a_roll_back_and_says_so(shop: Place, tmp_path: Path) -> None:
    path = tmp_path / "score.yaml"
    path.write_text(score_file("web", DATABASE))

    ran = run(
        *("deploy", str(path), "--app", "shop", "--env", "dev"),
        *("--timeout", "1h30m", "--rollback"),
    )

    deployment = Deployment.objects.get()
    assert ran.status == 0
    assert (deployment.timeout_seconds, deployment.rollback) == (5400, True)
    assert (
        "If it does not succeed, what it creates is destroyed again, unless others use it "
        "(--rollback).\n"
    ) in ran.out


def test_a_time_out_that_is_none_is_a_wrong_call(shop: Place, tmp_path: Path) -> None:
    path = tmp_path / "score.yaml"
    path.write_text(score_file("web", DATABASE))

    ran = run("deploy", str(path), "--app", "shop", "--env", "dev", "--timeout", "soon")

    assert ran.status == 2
    assert "'soon' is no length of time: write seconds, or hours" in ran.err
    assert not Deployment.objects.exists()


def test_a_roll_back_is_told_where_the_deployment_ends(shop: Place, tmp_path: Path) -> None:
    deployment = shop.deploy(FAILS, rollback=True)
    rollback = deployment.rollbacks.get()

    ran = run("logs", str(deployment.pk), "--follow")

    assert f"Deployment {rollback.pk} destroys again what it created: " in ran.err
