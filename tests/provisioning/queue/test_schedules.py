from __future__ import annotations

import importlib
import pydoc
from collections.abc import Callable
from datetime import timedelta
from pkgutil import iter_modules
from typing import Any

import django_q.scheduler
import pytest
from django.apps import apps
from django.utils import timezone
from django_q.conf import Conf
from django_q.models import OrmQ, Schedule

from provisioning import migrations
from provisioning.apps import check_schedules
from provisioning.queue.broker import NotifyBroker
from provisioning.queue.schedules import (
    REGULAR,
    SCHEDULES,
    mend_schedules,
    schedule_states,
)

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def rows() -> None:
    """Store the schedules as a fresh database has them."""
    Schedule.objects.all().delete()
    names = [module.name for module in iter_modules(migrations.__path__)]
    (name,) = [each for each in names if each.endswith("_scheduling")]
    importlib.import_module(f"provisioning.migrations.{name}").add_schedules(apps, None)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return what looks for due schedules as the cluster of a queue."""
    # It would close the test's own connection.
    monkeypatch.setattr(django_q.scheduler, "close_old_django_connections", lambda: None)

    def look(queue: str) -> None:
        monkeypatch.setattr(Conf, "CLUSTER_NAME", queue)
        django_q.scheduler.scheduler(broker=NotifyBroker(queue))

    return look


def problems() -> list[str]:
    return [state.problem for state in schedule_states() if state.problem]


def test_the_migration_stores_every_schedule_as_it_must_be() -> None:
    assert Schedule.objects.count() == len(SCHEDULES) == 4
    assert problems() == []
    assert mend_schedules() == []


def test_every_schedule_calls_a_function() -> None:
    for scheduled in SCHEDULES:
        function = pydoc.locate(scheduled.call)
        assert callable(function)
        function(REGULAR)


def test_what_is_due_is_rung_in_the_queue_that_every_worker_takes(
    cluster: Callable[[str], None],
) -> None:
    cluster(REGULAR)
    cluster(REGULAR)

    rung = [(row.key, row.task["func"], row.task["args"]) for row in OrmQ.objects.order_by("id")]
    assert sorted(rung) == sorted(("conductor", each.call, ("conductor",)) for each in SCHEDULES)
    assert problems() == []


def test_other_queues_ring_for_nothing(cluster: Callable[[str], None]) -> None:
    cluster("default")

    assert not OrmQ.objects.exists()


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        ({"func": "os.system"}, "func"),
        ({"args": "'rm -rf /',"}, "args"),
        ({"kwargs": "{'a': 1}"}, "kwargs"),
        ({"hook": "os.abort"}, "hook"),
        ({"cluster": None}, "cluster"),
        ({"repeats": 0}, "repeats"),
        ({"schedule_type": Schedule.YEARLY, "minutes": 9}, "minutes, schedule_type"),
        ({"next_run": None}, "next_run"),
        ({"next_run": timezone.now() + timedelta(days=365)}, "next_run"),
        ({"next_run": timezone.now() - timedelta(days=3650)}, "next_run"),
    ],
)
def test_an_edited_schedule_is_told_of_and_mended(edit: dict[str, Any], says: str) -> None:
    Schedule.objects.filter(name="conductor pools").update(**edit)
    sentence = f"The schedule conductor pools is not as it must be: {says}."
    assert problems() == [sentence]
    assert [warning.msg for warning in check_schedules(databases=["default"])] == [sentence]

    assert mend_schedules() == [sentence]

    assert problems() == []
    assert check_schedules(databases=["default"]) == []


def test_a_missing_schedule_is_stored_again() -> None:
    Schedule.objects.filter(name="conductor expiry").delete()
    assert problems() == ["The schedule conductor expiry is missing."]

    mend_schedules()

    assert problems() == []


def test_of_several_one_stays() -> None:
    Schedule.objects.create(name="conductor expiry", func="os.abort")
    assert problems() == ["The schedule conductor expiry is there 2 times."]

    mend_schedules()

    assert problems() == []
    assert Schedule.objects.count() == len(SCHEDULES)


def test_an_overdue_schedule_is_told_of_and_left() -> None:
    late = timezone.now() - timedelta(minutes=10)
    Schedule.objects.filter(name="conductor figures").update(next_run=late)

    since = f"{late:%Y-%m-%d %H:%M} UTC"
    assert problems() == [
        f"The schedule conductor figures is overdue since {since}: does a worker run?"
    ]
    assert mend_schedules() == []


def test_without_a_database_nothing_is_checked() -> None:
    Schedule.objects.all().delete()

    assert check_schedules() == []
