from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone
from django_q.models import Schedule

from provisioning.models import Worker
from provisioning.queue.schedules import SCHEDULES, mend_schedules
from provisioning.services.figures.alerts import RULES, rule_file
from provisioning.services.people import system_user
from tests.portal.commands import run
from tests.provisioning.place import Place

HTMX = {"HX-Request": "true"}


@pytest.fixture(autouse=True)
def schedules(db: None) -> None:
    mend_schedules()


@pytest.fixture(autouse=True)
def on_time(db: None) -> None:
    """Let the scheduled work be on time, however long ago the migration stored it."""
    Schedule.objects.update(next_run=timezone.now())


@pytest.fixture
def dead(db: None) -> Worker:
    """Return a worker that died."""
    return Worker.objects.create(
        host="alpha", pid=1, last_seen_at=timezone.now() - timedelta(minutes=2)
    )


@pytest.fixture
def staff(client: Client) -> Client:
    client.force_login(system_user())
    return client


def test_every_rule_says_that_all_is_well(staff: Client, place: Place) -> None:
    html = staff.get("/health/").content.decode()

    assert html.count(">ok<") == len(RULES) + len(SCHEDULES)
    assert ">firing<" not in html
    assert "More than 10% of the deployments fail" in html
    assert "conductor pools" in html


def test_a_firing_rule_shows_its_figures_and_what_to_do(staff: Client, dead: Worker) -> None:
    html = staff.get("/health/", headers=HTMX).content.decode()

    assert html.count(">firing<") == 1
    assert "1 dead, 0 alive, 0 draining." in html
    assert "start another" in html
    assert "<html" not in html


def test_a_queue_that_nobody_takes_is_marked(staff: Client, place: Place) -> None:
    place.template("part")
    place.submit("  one:\n    type: part\n")

    assert "nobody takes them" in staff.get("/health/").content.decode()


def test_a_missing_schedule_is_shown(staff: Client) -> None:
    Schedule.objects.filter(name="conductor expiry").delete()

    html = staff.get("/health/").content.decode()

    assert "The schedule conductor expiry is missing." in html


def test_the_command_says_that_all_is_well(place: Place) -> None:
    ran = run("health", "--format", "json")

    assert ran.status == 0
    assert {row["state"] for row in json.loads(ran.out)} == {"ok"}


def test_the_command_fails_if_anything_fires(dead: Worker) -> None:
    ran = run("health")

    assert ran.status == 1
    assert "firing  Workers are dead" in ran.out
    assert "1 dead, 0 alive, 0 draining." in ran.out


def test_the_command_prints_the_rule_file(db: None) -> None:
    assert run("health", "--rules").out == rule_file()
