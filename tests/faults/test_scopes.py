"""Many processes that find, change and leave one another's resources across environments."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from django.conf import LazySettings

from provisioning.models import (
    Deployment,
    Environment,
    Resource,
    ResourceConsumer,
    ResourceDependency,
    Step,
)
from provisioning.models.deployments import TERMINAL_STATUSES
from provisioning.planning.plan import PlanError
from provisioning.services.people import system_user
from provisioning.services.publishing import publish_resource
from provisioning.workers import runner
from provisioning.workers.tasks import work
from tests.faults.test_racing import race
from tests.provisioning.place import QUEUE, Place, chores, new_place

pytestmark = pytest.mark.django_db(transaction=True)

WIDE = """\
  cache:
    type: cache
    matching: {scope: organisation, matchOn: []%s}
    params: {size: %d}
"""
FOLLOWS = "  own:\n    type: box\n    params: {of: '${resources.cache.host}'}\n"


@pytest.fixture
def places(
    transactional_db: None,
    tmp_path: Path,
    settings: LazySettings,
    monkeypatch: pytest.MonkeyPatch,
) -> list[Place]:
    """Return two environments of an organisation whose rows other processes see."""
    settings.VAR_DIR = tmp_path / "var"
    settings.CONDUCTOR_WORK_DIR = tmp_path / "work"
    (tmp_path / "ledger").touch()
    monkeypatch.setenv("CONDUCTOR_FAKE_LEDGER", str(tmp_path / "ledger"))
    monkeypatch.setattr(runner, "RETRY_SECONDS", (0.0, 0.0))
    dev = new_place()
    dev.template("cache", outputs={"host": False}, merge_rules={"size": {"rule": "maximum"}})
    dev.template("box", outputs={"host": False})
    return [dev, dev.beside("staging")]


def work_all() -> None:
    """Do all the work there is, and what the sweeper finds."""
    for _ in range(4):
        work(QUEUE)
        chores()
    work(QUEUE)


def find_at_once(places: list[Place], racers: int, most: int | None, ledger: Path) -> None:
    """Let applications of both environments ask for the same at once, and count what comes of it."""
    wish = WIDE % ("" if most is None else f", maxConsumers: {most}", 1)
    for number in range(racers):
        places[0].application(f"app-{number}")

    def racer(number: int) -> None:
        places[number % 2].submit(wish, application=f"app-{number}")
        work(QUEUE)

    race(racer, racers)
    work_all()

    made = Resource.objects.order_by("slot_ordinal")
    wanted = -(-racers // most) if most else 1
    assert set(Deployment.objects.values_list("status", flat=True)) == {"succeeded"}
    assert [(each.slot_ordinal, each.state) for each in made] == [
        (number, "active") for number in range(wanted)
    ]
    assert made.values("match_slot").distinct().count() == 1
    used = Counter(
        ResourceConsumer.objects.filter(state="active").values_list("resource", flat=True)
    )
    assert sum(used.values()) == racers
    assert max(used.values()) <= (most or racers)
    assert ResourceConsumer.objects.filter(crosses=True).exists() is (most != 1)
    lines = sorted(line.split()[:2] for line in ledger.read_text().splitlines())
    assert lines == sorted(["create", str(each.pk)] for each in made)


def test_eight_processes_in_two_environments_that_find_nothing_make_one_resource(
    places: list[Place], tmp_path: Path
) -> None:
    find_at_once(places, 8, None, tmp_path / "ledger")


@pytest.mark.faults
@pytest.mark.parametrize("most", [None, 1, 5])
def test_thirty_two_processes_in_two_environments_never_exceed_their_most(
    places: list[Place], tmp_path: Path, most: int | None
) -> None:
    find_at_once(places, 32, most, tmp_path / "ledger")


def come_and_go(places: list[Place], racers: int, times: int, ledger: Path) -> None:
    """Let applications deploy, change and remove things that cross environments, and count."""
    applications = [f"app-{number}" for number in range(racers)]
    for application in applications:
        places[0].application(application)

    def racer(number: int) -> None:
        chance = random.Random(number)
        for _ in range(times):
            place = chance.choice(places)
            wish = WIDE % (chance.choice(["", ", maxConsumers: 2"]), chance.randint(1, 3))
            if chance.random() < 0.3:
                wish = wish.replace("organisation", "environment")
            if chance.random() < 0.6:
                wish += FOLLOWS
            if chance.random() < 0.3:
                place.teardown(applications[number])
            else:
                place.deploy(wish, application=applications[number])

    race(racer, racers, seconds=300)
    work_all()
    open_ = Deployment.objects.exclude(status__in=[*TERMINAL_STATUSES, "pending_confirmation"])
    assert list(open_.values_list("pk", "status", "status_reason")) == []
    # What a teardown that waited was to remove may be gone when its turn comes: it says so.
    failed = Deployment.objects.filter(status="failed").exclude(
        kind="teardown", status_reason__contains="has no workload 'web'"
    )
    assert list(failed.values_list("pk", "kind", "status_reason")) == []
    assert not Step.objects.filter(status__in=["pending", "running", "recovering"]).exists()
    used = ResourceConsumer.objects.filter(state="active")
    assert not used.exclude(resource__state="active").exists()
    assert not ResourceDependency.objects.exclude(target__state="active").exists()

    for place in places:
        for application in applications:
            assert place.teardown(application).status == "succeeded"
    assert set(Resource.objects.values_list("state", flat=True)) == {"deleted"}
    assert not used.exists()
    made = [line.split()[:2] for line in ledger.read_text().splitlines()]
    for resource in {resource for _, resource in made}:
        actions = [action for action, each in made if each == resource]
        assert actions[-1] == "destroy"
        assert actions.count("destroy") == 1


@pytest.mark.slow
def test_what_crosses_environments_comes_and_goes_and_leaves_nothing_behind(
    places: list[Place], tmp_path: Path
) -> None:
    come_and_go(places, 4, 4, tmp_path / "ledger")


@pytest.mark.faults
def test_much_that_crosses_environments_leaves_nothing_behind(
    places: list[Place], tmp_path: Path
) -> None:
    come_and_go(places, 8, 30, tmp_path / "ledger")


def test_organisations_that_publish_and_find_at_once_do_not_hinder_one_another(
    places: list[Place],
) -> None:
    rival = new_place("rival")
    for place, application in ((places[0], "owner"), (rival, "finder")):
        place.team = "platform"
        place.application(application)
    places[0].deploy(WIDE % ("", 1), application="owner")
    resource = Resource.objects.get()
    Resource.objects.update(sharing_policy="open")
    system_user()

    def racer(number: int) -> None:
        for _ in range(5):
            if number == 0:
                publish_resource(resource=resource, published=True, actor=system_user())
            elif number == 1:
                places[1].deploy(WIDE % ("", 1), application="owner")
            else:
                try:
                    rival.deploy(
                        (WIDE % ("", 1)).replace("organisation", "global"), application="finder"
                    )
                except PlanError:
                    continue  # it has not been published yet

    race(racer, 3)

    assert Environment.objects.count() == 3
    assert Resource.objects.count() == 1
    assert not Deployment.objects.exclude(status__in=["succeeded", "superseded"]).exists()
