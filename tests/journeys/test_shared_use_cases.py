"""Shared things through the commands: a database, tools for everybody, no accidental deletion."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from provisioning.models import AuditEvent, Deployment, ResourceConsumer
from provisioning.workers.tasks import work
from tests.portal.commands import Ran, run
from tests.provisioning.conftest import ledger, place
from tests.provisioning.place import QUEUE, Place, score_file

__all__ = ["ledger", "place"]

DATABASE = "  db:\n    type: database\n    reference: {mode: shared, name: shared-db}\n"
TOOLS = "".join(
    f"  {name}:\n    type: {name}\n    reference: {{mode: shared, name: {name}}}\n"
    for name in ("mailhog", "minio", "redis")
)


@pytest.fixture(autouse=True)
def templates(place: Place) -> None:
    place.template("database", outputs={"host": False, "password": True})
    for name in ("mailhog", "minio", "redis"):
        place.template(name, outputs={"url": False})


def deploy(place: Place, folder: Path, application: str, resources: str) -> Ran:
    """Deploy one workload that is named like its application, and do the work."""
    place.application(application)
    file = folder / f"{application}.yaml"
    file.write_text(score_file(application, resources))
    ran = run("deploy", str(file), "--app", application, "--env", "dev")
    assert ran.status == 0, ran.err
    work(QUEUE)
    return ran


def outputs(application: str) -> dict[str, dict[str, dict[str, str]]]:
    ran = run("outputs", "--app", application, "--env", "dev", "--format", "json")
    found: dict[str, dict[str, dict[str, str]]] = json.loads(ran.out)
    return found


def test_two_frontends_share_the_database_of_a_third(
    place: Place, tmp_path: Path, ledger: Path
) -> None:
    deploy(place, tmp_path, "shared-db", DATABASE)
    first = deploy(place, tmp_path, "frontend-1", DATABASE)
    deploy(place, tmp_path, "frontend-2", DATABASE)

    assert "= reuse" in first.out
    assert ledger.read_text().count("create") == 1
    for application in ("frontend-1", "frontend-2"):
        assert outputs(application)[application]["db"]["host"] == "fake-host"
    listed = json.loads(run("shared", "list", "--env", "dev", "--format", "json").out)
    assert [(each["name"], each["owner"], each["created_by"]) for each in listed] == [
        ("shared-db", "everybody", "shared-db")
    ]
    assert [use["consumer"] for use in listed[0]["uses"]] == [
        "shared-db",
        "frontend-1",
        "frontend-2",
    ]
    inspected = run("shared", "inspect", "shared-db")
    assert "Owner:       everybody" in inspected.out
    assert "State:       active" in inspected.out
    assert "Consumers (3):" in inspected.out
    assert "  - frontend-2 as db since 20" in inspected.out


def test_several_projects_use_the_same_tools_which_outlive_their_first_user(
    place: Place, tmp_path: Path, ledger: Path
) -> None:
    deploy(place, tmp_path, "dev-tools", TOOLS)
    deploy(place, tmp_path, "api", TOOLS)
    deploy(place, tmp_path, "web", TOOLS)

    assert ledger.read_text().count("create") == 3
    assert set(outputs("web")["web"]) == {"mailhog", "minio", "redis"}
    listed = run("shared", "list", "--env", "dev").out
    assert [line for line in listed.splitlines() if "└─" in line and "api" in line]

    place.teardown("dev-tools")
    place.teardown("api")
    assert set(place.states().values()) == {"active"}
    assert "destroy" not in ledger.read_text()

    place.teardown("web")
    assert set(place.states().values()) == {"deleted"}
    assert run("shared", "list", "--env", "dev").out == "No shared resources.\n"


def test_a_shared_database_in_use_is_not_deleted_by_accident(
    place: Place, tmp_path: Path, ledger: Path
) -> None:
    deploy(place, tmp_path, "frontend-1", DATABASE)
    deploy(place, tmp_path, "frontend-2", DATABASE)

    refused = run("resource", "destroy", "shared-db", "--env", "dev")

    assert refused.status == 1
    assert refused.err == (
        "Cannot destroy shared-db, referenced by: frontend-1, frontend-2\n"
        "Use --force --reason TEXT to destroy it anyway (will break what references it).\n"
    )
    assert place.states() == {"shared/shared-db": "active"}
    assert not Deployment.objects.filter(kind="maintenance").exists()
    assert "destroy" not in ledger.read_text()

    no_reason = run("resource", "destroy", "shared-db", "--env", "dev", "--force")
    assert (no_reason.status, "--reason" in no_reason.err) == (1, True)
    assert place.states() == {"shared/shared-db": "active"}

    forced = run(
        "resource",
        "destroy",
        "shared-db",
        "--env",
        "dev",
        "--force",
        "--reason",
        "It was breached.",
    )
    work(QUEUE)

    assert forced.status == 0
    assert "Changes what frontend-1/frontend-1 of the team " in forced.out
    assert place.states() == {"shared/shared-db": "deleted"}
    assert set(ResourceConsumer.objects.values_list("state", flat=True)) == {"broken"}
    assert AuditEvent.objects.get(action="resource.destroy_forced").reason == "It was breached."
    history = run("resource", "history", "shared-db", "--env", "dev").out
    for happening in (
        "resource.provisioning",
        "consumer.active",
        "resource.destroy_forced",
        "consumer.broken",
        "resource.deleted",
    ):
        assert happening in history


def test_a_plan_says_what_is_wrong_with_a_shared_resource_it_needs(
    place: Place, tmp_path: Path
) -> None:
    failing = DATABASE + "    params: {fail: no space left, permanent: true}\n"
    deploy(place, tmp_path, "shared-db", failing)
    failed = Deployment.objects.get()
    assert failed.status == "failed"
    place.application("frontend")
    file = tmp_path / "frontend.yaml"
    file.write_text(score_file("frontend", DATABASE))

    plan = run("plan", str(file), "--app", "frontend", "--env", "dev")

    assert (
        f"is failed, owned by everybody: deployment {failed.pk} of shared-db failed on it; it will be "
        "brought about again"
    ) in plan.out
    inspected = run("shared", "inspect", "shared-db").out
    assert f"State:       failed (deployment {failed.pk} failed on it)" in inspected
