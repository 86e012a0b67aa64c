"""Many processes that ask for the same at once."""

from __future__ import annotations

import multiprocessing
import random
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.db import connections

from provisioning.models import Deployment, Resource, ResourceConsumer, Step
from provisioning.models.deployments import TERMINAL_STATUSES
from provisioning.workers import runner
from provisioning.workers.tasks import work
from tests.provisioning.place import QUEUE, Place, chores, new_place

pytestmark = pytest.mark.django_db(transaction=True)

RACERS = 16
SHARED = """\
  cache:
    type: cache
    reference: {mode: shared, name: cache}
    params: {wait: 0.1}
"""
PRIVATE = """\
  own:
    type: cache
    params: {of: '${resources.cache.host}'}
"""


@pytest.fixture
def place(
    transactional_db: None,
    tmp_path: Path,
    settings: LazySettings,
    monkeypatch: pytest.MonkeyPatch,
) -> Place:
    """Return an organisation whose rows other processes see."""
    settings.VAR_DIR = tmp_path / "var"
    settings.CONDUCTOR_WORK_DIR = tmp_path / "work"
    (tmp_path / "ledger").touch()
    monkeypatch.setenv("CONDUCTOR_FAKE_LEDGER", str(tmp_path / "ledger"))
    monkeypatch.setattr(runner, "RETRY_SECONDS", (0.0, 0.0))
    place = new_place()
    place.template("cache", outputs={"host": False})
    return place


def race(racer: Callable[[int], None], count: int = RACERS, seconds: float = 60) -> None:
    """Run `racer(number)` in so many processes that begin at the same moment."""
    connections.close_all()
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(count)

    def run(number: int) -> None:
        barrier.wait(30)
        try:
            racer(number)
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            connections.close_all()

    processes = [fork.Process(target=run, args=(number,)) for number in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(seconds)
    still = [process for process in processes if process.is_alive()]
    for process in still:
        process.kill()
    assert not still, "a racer hangs"
    assert [process.exitcode for process in processes] == [0] * count


def deploy_the_same(place: Place, round_: int, ledger: Path) -> None:
    """Let 16 applications deploy one shared name at once, and count what came of it."""
    ledger.write_text("")
    name = f"cache-{round_}"
    resources = SHARED.replace("name: cache", f"name: {name}")
    for number in range(RACERS):
        place.application(f"app-{number}")

    def racer(number: int) -> None:
        place.submit(resources, application=f"app-{number}", workload=f"web-{round_}")
        work(QUEUE)

    race(racer)

    resource = Resource.objects.get(key=f"shared/{name}")
    assert resource.state == "active"
    assert [line.split()[:2] for line in ledger.read_text().splitlines()] == [
        ["create", str(resource.pk)]
    ]
    consumers = ResourceConsumer.objects.filter(resource=resource)
    assert set(consumers.values_list("state", flat=True)) == {"active"}
    assert len(set(consumers.values_list("workload__application", flat=True))) == RACERS
    assert consumers.count() == RACERS
    assert set(Deployment.objects.values_list("status", flat=True)) == {"succeeded"}
    assert Deployment.objects.count() == RACERS * (round_ + 1)


def test_sixteen_processes_deploying_one_shared_name_make_one_resource(
    place: Place, tmp_path: Path
) -> None:
    deploy_the_same(place, 0, tmp_path / "ledger")


@pytest.mark.faults
def test_sixteen_processes_deploying_one_shared_name_twenty_times(
    place: Place, tmp_path: Path
) -> None:
    for round_ in range(20):
        deploy_the_same(place, round_, tmp_path / "ledger")


def come_and_go(place: Place, racers: int, times: int, ledger: Path) -> None:
    """Let applications deploy, change and remove the same things at random, and count at the end."""
    applications = [f"app-{number}" for number in range(racers)]
    for application in applications:
        place.application(application)

    def racer(number: int) -> None:
        chance = random.Random(number)
        for _ in range(times):
            resources = SHARED.replace("0.1", "0") + (PRIVATE if chance.random() < 0.6 else "")
            if chance.random() < 0.2:
                resources += "  bad:\n    type: cache\n    params: {fail: no, permanent: true}\n"
            if chance.random() < 0.3:
                place.teardown(applications[number])
            else:
                place.deploy(resources, application=applications[number])

    race(racer, racers)
    for _ in range(3):
        chores()
        work(QUEUE)
    open_ = Deployment.objects.exclude(status__in=[*TERMINAL_STATUSES, "pending_confirmation"])
    assert list(open_.values_list("pk", "status", "status_reason")) == []
    assert not Step.objects.filter(status__in=["pending", "running", "recovering"]).exists()

    for application in applications:
        assert place.teardown(application).status == "succeeded"
    assert set(Resource.objects.values_list("state", flat=True)) == {"deleted"}
    assert not ResourceConsumer.objects.filter(state="active").exists()
    made = [line.split()[:2] for line in ledger.read_text().splitlines()]
    assert made, "nothing was done at all"
    for resource in {resource for _, resource in made}:
        actions = [action for action, each in made if each == resource]
        assert actions[-1] == "destroy"
        assert actions.count("destroy") == 1


def test_applications_that_come_and_go_leave_nothing_behind(place: Place, tmp_path: Path) -> None:
    come_and_go(place, 3, 3, tmp_path / "ledger")


@pytest.mark.faults
def test_many_applications_that_come_and_go_leave_nothing_behind(
    place: Place, tmp_path: Path
) -> None:
    come_and_go(place, 8, 30, tmp_path / "ledger")
