from __future__ import annotations

import socket
from datetime import timedelta

import pytest
from django.utils import timezone

from provisioning.models import Deployment, Environment, MaintenanceMode, ResourceTemplate, Step
from provisioning.models.workers import Worker
from provisioning.queue import doorbell
from provisioning.workers import heartbeat, tasks
from provisioning.workers.heartbeat import Heartbeat
from provisioning.workers.tasks import claim, is_anything_ready, is_paused, work
from tests.provisioning.place import Place

CHAIN = """\
  base:
    type: part
  top:
    type: part
    params: {of: '${resources.base.host}'}
"""


@pytest.fixture(autouse=True)
def templates(place: Place) -> None:
    place.template("part", outputs={"host": False})


@pytest.fixture
def rung(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the queues that were rung, in order."""
    queues: list[str] = []
    monkeypatch.setattr(doorbell, "ring", queues.append)
    return queues


def test_a_claim_has_a_lease_on_the_databases_clock(place: Place) -> None:
    place.submit(CHAIN)

    step = claim("default")

    assert step is not None
    stored = Step.objects.get(pk=step.pk)
    assert (stored.status, stored.attempt, step.attempt) == ("running", 1, 1)
    assert stored.lease_until is not None
    left = stored.lease_until - timezone.now()
    assert timedelta(seconds=15) < left <= timedelta(seconds=21)


def test_a_step_is_claimed_once_and_only_when_what_it_needs_has_succeeded(place: Place) -> None:
    place.submit(CHAIN)

    assert claim("default") is not None
    assert claim("default") is None


def test_another_queues_steps_are_left(place: Place) -> None:
    place.submit(CHAIN)

    assert claim("other") is None
    assert not is_anything_ready("other")
    assert is_anything_ready("default")


@pytest.mark.parametrize("status", ["cancelling", "failed"])
def test_steps_of_a_deployment_that_does_not_run_are_left(place: Place, status: str) -> None:
    deployment = place.submit(CHAIN)
    Deployment.objects.filter(pk=deployment.pk).update(status=status, ends_as="cancelled")

    assert claim("default") is None


def test_a_claim_wakes_another_worker_only_if_more_is_ready(place: Place, rung: list[str]) -> None:
    place.submit(CHAIN)
    place.submit("  one:\n    type: part\n", application="billing")
    rung.clear()

    assert claim("default") is not None
    assert rung == ["default"]
    assert claim("default") is not None
    assert rung == ["default"]


def test_work_ends_when_nothing_is_ready_and_rings_no_more(place: Place, rung: list[str]) -> None:
    deployment = place.submit(CHAIN)
    rung.clear()

    work("default")

    deployment.refresh_from_db()
    assert (deployment.status, rung) == ("succeeded", [])


def test_work_rings_again_when_its_time_is_over(
    place: Place, rung: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = place.submit(CHAIN)
    rung.clear()
    monkeypatch.setattr(tasks, "LONGEST_SECONDS", 0.0)

    work("default")

    assert rung == ["default"]
    assert not deployment.steps.exclude(status="pending").exists()


def test_the_oldest_deployment_comes_first(place: Place) -> None:
    place.submit(CHAIN)
    place.submit(CHAIN, application="billing")

    claimed = [claim("default"), claim("default")]

    names = [
        step.deployment.application.name for step in claimed if step and step.deployment.application
    ]
    assert names == ["shop", "billing"]


TWO = "  one:\n    type: part\n  two:\n    type: part\n"


def claimed(*, most: int = 20) -> list[str]:
    """Claim all there is; return whose each step is, in order."""
    names = []
    while len(names) < most and (step := claim("default")) is not None:
        assert step.deployment.application is not None
        names.append(step.deployment.application.name)
    return names


@pytest.fixture
def teams(place: Place) -> Place:
    """Return a place in which each application has a team of its own."""
    place.team = ""
    return place


def test_the_highest_priority_comes_first(teams: Place) -> None:
    for name, priority in {"low": -10, "normal": 0, "urgent": 50, "high": 10}.items():
        teams.submit("  one:\n    type: part\n", application=name, priority=priority)

    assert claimed() == ["urgent", "high", "normal", "low"]


def test_priority_counts_more_than_fairness(teams: Place) -> None:
    teams.submit(TWO, application="busy", priority=10)
    teams.submit(TWO, application="idle")

    assert claimed() == ["busy", "busy", "idle", "idle"]


def test_the_team_with_the_fewest_running_steps_comes_first(teams: Place) -> None:
    many = "".join(f"  part-{number}:\n    type: part\n" for number in range(6))
    teams.submit(many, application="large")
    teams.submit(TWO, application="small")
    teams.submit(TWO, application="late")

    assert claimed(most=7) == ["large", "small", "late", "large", "small", "late", "large"]


def test_a_single_process_takes_turns_between_teams(teams: Place) -> None:
    many = "".join(f"  part-{number}:\n    type: part\n" for number in range(4))
    teams.submit(many, application="large")
    teams.submit(TWO, application="small")
    order = []
    for _ in range(5):
        order += claimed(most=1)
        Step.objects.filter(status="running").update(status="succeeded")

    assert order == ["large", "small", "large", "small", "large"]


def test_maintenance_counts_for_the_team_of_its_owner(teams: Place) -> None:
    teams.deploy("  one:\n    type: part\n", application="owner")
    resource = teams.resource("private/owner/web/one/part.default")
    teams.submit("  one:\n    type: part\n", application="somebody", priority=10)
    assert claimed() == ["somebody"]
    Deployment.objects.filter(application__name="somebody").update(
        kind="maintenance", application=None, resource=resource
    )
    Step.objects.update(started_at=None)  # nobody had a turn yet
    teams.submit(TWO, application="owner")
    teams.submit("  one:\n    type: part\n", application="third")

    assert claimed() == ["third", "owner"]


def test_no_more_than_the_environments_limit_run_at_once(place: Place) -> None:
    Environment.objects.update(max_concurrent=2)
    place.submit(TWO)
    place.submit(TWO, application="billing")

    assert claimed() == ["shop", "shop"]
    assert not is_anything_ready("default")
    Step.objects.filter(status="running").update(status="succeeded")
    assert is_anything_ready("default")
    assert claimed() == ["billing", "billing"]


def test_a_recovering_step_keeps_its_place_under_a_limit(place: Place) -> None:
    Environment.objects.update(max_concurrent=1)
    place.submit(TWO)
    claimed()
    Step.objects.filter(status="running").update(status="recovering")

    assert claim("default") is None


def test_a_templates_limit_holds_up_nothing_else(place: Place) -> None:
    place.template("other")
    ResourceTemplate.objects.filter(name="part-template").update(max_concurrent=1)
    place.submit(TWO, priority=10)
    place.submit("  one:\n    type: other\n", application="billing")

    assert claimed() == ["shop", "billing"]


def test_nothing_begins_while_maintenance_is_on(place: Place) -> None:
    place.submit(TWO)
    MaintenanceMode.objects.create()

    assert claim("default") is None
    assert not is_anything_ready("default")


def test_maintenance_of_one_environment_leaves_others_alone(place: Place) -> None:
    place.submit(TWO)
    closed = Environment.objects.create(organisation=place.organisation, name="closed")
    MaintenanceMode.objects.create(environment=closed)
    assert claimed() == ["shop", "shop"]

    Step.objects.update(status="pending", attempt=0, lease_until=None)
    MaintenanceMode.objects.update(environment=place.environment)
    assert claimed() == []


def test_a_draining_worker_takes_nothing_and_passes_the_doorbell_on(
    place: Place, rung: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "installed_tools", dict)
    monkeypatch.setattr(heartbeat, "_current", None)
    deployment = place.submit(TWO)
    rung.clear()
    Heartbeat(["default"]).register()
    Worker.objects.update(draining=True)

    work("default")

    assert rung == ["default"]
    assert set(deployment.steps.values_list("status", flat=True)) == {"pending"}
    Worker.objects.update(draining=False)
    assert place.done(deployment).status == "succeeded"


def lose(host: str) -> Step:
    """Let the only running step be lost by a worker on a host, with its tool perhaps at work."""
    worker = Worker.objects.create(host=host, pid=1, last_seen_at=timezone.now())
    step = Step.objects.get(status="running")
    Step.objects.filter(pk=step.pk).update(
        status="pending", worker=worker, lease_until=timezone.now() + timedelta(seconds=30)
    )
    return step


def test_a_step_that_was_lost_here_comes_before_all_others(teams: Place) -> None:
    teams.submit(TWO, application="early")
    claimed(most=1)
    lost = lose(socket.gethostname())
    teams.submit(TWO, application="urgent", priority=100)

    step = claim("default")

    assert step is not None
    assert (step.pk, step.attempt) == (lost.pk, 2)
    assert claimed(most=1) == ["urgent"]


def test_a_step_that_was_lost_here_is_taken_also_in_maintenance(place: Place) -> None:
    place.submit(TWO)
    claimed(most=1)
    lost = lose(socket.gethostname())
    MaintenanceMode.objects.create()

    assert is_anything_ready("default")
    step = claim("default")
    assert step is not None
    assert step.pk == lost.pk
    assert claim("default") is None
    assert not is_anything_ready("default")


def test_a_draining_worker_takes_what_was_lost_on_its_host_and_nothing_else(
    place: Place, rung: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "installed_tools", dict)
    monkeypatch.setattr(heartbeat, "_current", None)
    place.submit(TWO)
    claimed(most=1)
    Heartbeat(["default"]).register()
    Worker.objects.update(draining=True)
    assert is_paused("default")
    lost = lose(socket.gethostname())
    assert not is_paused("default")
    assert is_paused("other")
    rung.clear()

    work("default")

    assert rung[-1] == "default"
    assert dict(Step.objects.values_list("pk", "status")) == {
        lost.pk: "succeeded",
        Step.objects.exclude(pk=lost.pk).get().pk: "pending",
    }
    assert is_paused("default")


def test_a_step_that_was_lost_keeps_its_place_under_a_limit(place: Place) -> None:
    place.submit(TWO)
    Environment.objects.update(max_concurrent=1)
    claimed()
    lost = lose("elsewhere")
    assert claim("default") is None

    Worker.objects.update(host=socket.gethostname())
    step = claim("default")

    assert step is not None
    assert step.pk == lost.pk
    assert claim("default") is None
