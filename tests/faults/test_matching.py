"""Many processes that ask by criteria for the same at once."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
from django.conf import LazySettings

from provisioning.models import Deployment, Resource, ResourceConsumer
from provisioning.workers import runner
from provisioning.workers.tasks import work
from tests.faults.test_racing import race
from tests.provisioning.place import QUEUE, Place, new_place

pytestmark = pytest.mark.django_db(transaction=True)


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


def match_at_once(place: Place, racers: int, most: int | None, ledger: Path) -> None:
    """Let applications ask for the same at once, and count what came of it."""
    limit = "" if most is None else f", maxConsumers: {most}"
    resources = (
        f"  cache:\n    type: cache\n    matching: {{matchOn: [size]{limit}}}\n"
        "    params: {size: 1}\n"
    )
    for number in range(racers):
        place.application(f"app-{number}")

    def racer(number: int) -> None:
        place.submit(resources, application=f"app-{number}")
        work(QUEUE)

    race(racer, racers)

    made = Resource.objects.all()
    wanted = math.ceil(racers / most) if most else 1
    assert set(Deployment.objects.values_list("status", flat=True)) == {"succeeded"}
    assert set(made.values_list("state", flat=True)) == {"active"}
    assert sorted(made.values_list("slot_ordinal", flat=True)) == list(range(wanted))
    assert made.values("match_slot").distinct().count() == 1
    used = Counter(
        ResourceConsumer.objects.filter(state="active").values_list("resource", flat=True)
    )
    assert sum(used.values()) == racers
    assert max(used.values()) <= (most or racers)
    lines = sorted(line.split()[:2] for line in ledger.read_text().splitlines())
    assert lines == sorted(["create", str(each.pk)] for each in made)


def test_eight_processes_that_find_nothing_make_one_resource(place: Place, tmp_path: Path) -> None:
    match_at_once(place, 8, None, tmp_path / "ledger")


def test_eight_processes_never_exceed_three_consumers(place: Place, tmp_path: Path) -> None:
    match_at_once(place, 8, 3, tmp_path / "ledger")


@pytest.mark.faults
@pytest.mark.parametrize("most", [None, 1, 5])
def test_thirty_two_processes_never_exceed_their_most(
    place: Place, tmp_path: Path, most: int | None
) -> None:
    match_at_once(place, 32, most, tmp_path / "ledger")
