"""Many processes that claim members of one pool at once, while others fill it."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.db import connections, transaction

from provisioning.models import AuditEvent, Deployment, Resource, ResourceConsumer, ResourcePool
from provisioning.planning.plan import PlanError
from provisioning.services.people import system_user
from provisioning.services.pools import create_pool, fill_pools, resize_pool
from provisioning.workers import runner
from provisioning.workers.tasks import work
from tests.faults.test_racing import race
from tests.provisioning.place import QUEUE, Place, chores, new_place

pytestmark = pytest.mark.django_db(transaction=True)

RACERS = 8
CLAIM = "  cache:\n    type: cache\n    pool: warm\n"


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
    for number in range(RACERS):
        place.application(f"app-{number}")
    return place


def pool(place: Place, *, size: int, max_size: int) -> ResourcePool:
    made = create_pool(
        environment=place.environment,
        team=place.team_named("platform"),
        name="warm",
        version=place.templates["cache"],
        params={},
        size=size,
        max_size=max_size,
        max_concurrent=size,
        actor=system_user(),
    )
    work(QUEUE)
    return made


def claim(place: Place, number: int) -> None:
    """Claim as one of the applications; being refused is told by no deployment."""
    try:
        place.submit(CLAIM, application=f"app-{number}")
    except PlanError as error:
        assert "has no member ready" in str(error)  # noqa: PT017 - anything else fails the racer


def claims() -> Counter[object]:
    active = ResourceConsumer.objects.filter(state="active")
    return Counter(active.values_list("resource", flat=True))


def test_eight_processes_never_get_the_same_member(place: Place) -> None:
    pool(place, size=8, max_size=8)

    race(lambda number: claim(place, number), RACERS)

    assert sorted(claims().values()) == [1] * 8
    assert AuditEvent.objects.filter(action="resource.claimed").count() == 8
    deployed = Deployment.objects.filter(kind="deploy")
    assert set(deployed.values_list("status", flat=True)) == {"succeeded"}


def test_a_member_that_somebody_else_has_locked_is_passed_over(place: Place) -> None:
    pool(place, size=2, max_size=2)
    oldest, second = Resource.objects.order_by("created_at")
    locked, claimed = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            Resource.objects.select_for_update().get(pk=oldest.pk)
            locked.set()
            claimed.wait(20)
        connections.close_all()

    with ThreadPoolExecutor(1) as executor:
        holding = executor.submit(hold)
        assert locked.wait(20)
        deployment = place.submit(CLAIM, application="app-0")
        claimed.set()
        holding.result(20)

    assert deployment.status == "succeeded"
    assert ResourceConsumer.objects.get().resource == second


@pytest.mark.slow
def test_eight_processes_share_out_five_and_make_three(place: Place) -> None:
    pool(place, size=5, max_size=8)

    def racer(number: int) -> None:
        claim(place, number)
        work(QUEUE)

    race(racer, RACERS)

    assert sorted(claims().values()) == [1] * 8
    assert AuditEvent.objects.filter(action="resource.claimed").count() == 5
    assert Resource.objects.filter(state="active").count() == 8


@pytest.mark.slow
def test_eight_processes_that_claim_fill_and_shrink_keep_to_the_most(
    place: Place, tmp_path: Path
) -> None:
    warm = pool(place, size=3, max_size=5)

    def racer(number: int) -> None:
        claim(place, number)
        fill_pools()
        if number == 0:
            resize_pool(pool=warm, actor=system_user(), size=1)
        work(QUEUE)
        chores()

    race(racer, RACERS)
    work(QUEUE)

    assert set(claims().values()) == {1}
    assert sum(claims().values()) == Deployment.objects.filter(kind="deploy").count()
    live = Resource.objects.exclude(state="deleted")
    assert live.count() <= 5
    destroyed = Resource.objects.filter(state="deleted")
    assert not ResourceConsumer.objects.filter(resource__in=destroyed, state="active").exists()
    made = [line.split()[:2] for line in (tmp_path / "ledger").read_text().splitlines()]
    created = sorted(words[1] for words in made if words[0] == "create")
    assert created == sorted(set(created))
