from __future__ import annotations

import json

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from provisioning.models import Deployment, Environment, MaintenanceMode, ResourceTemplate, Worker
from provisioning.services.people import system_user
from tests.portal.commands import run
from tests.provisioning.place import Place, score_file

PART = "  one:\n    type: part\n"


@pytest.fixture(autouse=True)
def shop(place: Place, alice: User) -> Place:
    """Return a place where alice is a member of the team that has the application shop."""
    place.template("part")
    place.application("shop", alice)
    return place


@pytest.fixture
def score(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("score") / "score.yaml"
    path.write_text(score_file("web", PART))
    return str(path)


def test_a_deployment_is_given_a_priority(score: str) -> None:
    target = ("--app", "shop", "--env", "dev")
    assert run("deploy", score, *target, "--priority", "high").status == 0
    assert run("teardown", *target, "--priority", "-5").status == 0

    assert list(Deployment.objects.order_by("pk").values_list("priority", flat=True)) == [10, -5]


def test_a_wrong_priority_is_a_wrong_call(score: str) -> None:
    ran = run("deploy", score, "--app", "shop", "--env", "dev", "--priority", "urgent")

    assert ran.status == 2
    assert "'urgent' is not a priority" in ran.err
    assert not Deployment.objects.exists()


def test_a_member_may_not_raise_a_priority(score: str) -> None:
    ran = run(
        "deploy", score, "--app", "shop", "--env", "dev", "--priority", "high", "--as", "alice"
    )

    assert ran.status == 1
    assert "for the owners of the team everybody" in ran.err
    assert not Deployment.objects.exists()


def test_a_priority_is_changed(shop: Place) -> None:
    deployment = shop.submit(PART)

    ran = run("priority", str(deployment.pk), "high")

    assert ran.out == f"Deployment {deployment.pk} has the priority high.\n"
    deployment.refresh_from_db()
    assert deployment.priority == 10


def test_maintenance_is_begun_listed_and_ended(shop: Place) -> None:
    ran = run("maintenance", "on", "--reason", "Moving house", "--environment", "dev")
    assert ran.status == 0
    assert "Moving house. Workers end what they run, and begin nothing new." in ran.out
    (row,) = json.loads(run("maintenance", "list", "--format", "json").out)
    assert (row["environment"], row["reason"], row["by"]) == ("dev", "Moving house", "conductor")

    assert run("maintenance", "off", "--env", "dev").status == 0

    assert not MaintenanceMode.objects.exists()
    ran = run("maintenance", "off")
    assert (ran.status, ran.err) == (1, "Maintenance is not on everywhere.\n")


def test_deploying_meanwhile_says_why_nothing_begins(score: str) -> None:
    run("maintenance", "on", "--reason", "Moving house.")

    ran = run("deploy", score, "--app", "shop", "--env", "dev")

    assert ran.status == 0
    assert "is waiting.\nMaintenance since " in ran.out
    assert ran.out.endswith("Moving house.\n")


def test_maintenance_is_shown_on_every_page(client: Client, alice: User, bob: User) -> None:
    run("maintenance", "on", "--reason", "Moving house.", "--env", "dev")
    client.force_login(alice)
    assert "Moving house." in client.get("/deployments/").content.decode()
    client.force_login(bob)
    assert "Moving house." not in client.get("/deployments/").content.decode()
    client.logout()
    assert "Moving house." not in client.get("/accounts/login/").content.decode()


@pytest.fixture
def admin(client: Client) -> Client:
    user = system_user()
    client.force_login(user)
    return client


def test_maintenance_is_begun_and_ended_in_the_admin(admin: Client, shop: Place) -> None:
    waiting = shop.submit(PART)
    add = "/admin/provisioning/maintenancemode/add/"
    assert admin.post(add, {"environment": "", "reason": "Moving house."}).status_code == 302
    waiting.refresh_from_db()
    assert waiting.status_reason.endswith("Moving house.")
    again = admin.post(add, {"environment": "", "reason": ""}).content.decode()
    assert "Maintenance is on there already." in again
    assert "Moving house." in again

    mode = MaintenanceMode.objects.get()
    url = f"/admin/provisioning/maintenancemode/{mode.pk}/delete/"
    assert admin.post(url, {"post": "yes"}).status_code == 302

    assert not MaintenanceMode.objects.exists()
    waiting.refresh_from_db()
    assert waiting.status_reason == ""


def test_workers_are_drained_in_the_admin(admin: Client) -> None:
    worker = Worker.objects.create(host="alpha", pid=1, last_seen_at=timezone.now())
    url = "/admin/provisioning/worker/"

    admin.post(url, {"action": "drain", "_selected_action": str(worker.pk)})
    worker.refresh_from_db()
    assert worker.draining is True
    admin.post(url, {"action": "resume", "_selected_action": str(worker.pk)})
    worker.refresh_from_db()
    assert worker.draining is False


def test_workers_are_listed_drained_and_resumed(shop: Place) -> None:
    Worker.objects.create(host="alpha", pid=1, queues=["default"], last_seen_at=timezone.now())

    assert run("workers", "drain", "alpha").out == (
        "The worker alpha:1 ends what it runs, and takes nothing new.\n"
    )
    (row,) = json.loads(run("workers", "list", "--format", "json").out)
    assert (row["host"], row["state"], row["queues"]) == ("alpha", "draining", ["default"])
    assert run("workers", "resume", "alpha:1").out == "The worker alpha:1 takes steps.\n"
    ran = run("workers", "drain", "beta")
    assert (ran.status, ran.err) == (1, "There is no worker beta. There are alpha:1.\n")


def test_limits_are_set_and_listed(shop: Place) -> None:
    ran = run("limit", "environment", "dev", "3")
    assert ran.out == "At most 3 of the steps of dev run at once.\n"
    assert run("limit", "template", "part-template", "1").status == 0
    assert json.loads(run("limit", "list", "--format", "json").out) == [
        {"of": "environment", "name": "dev", "limit": 3, "running": 0},
        {"of": "template", "name": "part-template", "limit": 1, "running": 0},
    ]
    assert run("limit", "environment", "dev", "none").status == 0

    assert Environment.objects.get().max_concurrent is None
    assert ResourceTemplate.objects.get().max_concurrent == 1
    assert run("limit", "environment", "dev", "0").status == 1
    assert run("limit", "environment", "dev", "many").status == 2
