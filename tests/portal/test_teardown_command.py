from __future__ import annotations

import time

import pytest
from django.contrib.auth.models import User

from provisioning.models import Deployment
from provisioning.workers.tasks import work
from tests.portal.commands import run
from tests.provisioning.place import QUEUE, Place

TARGET = ["--app", "shop", "--env", "dev"]
DATABASE = "  db:\n    type: postgres\n"


@pytest.fixture
def shop(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Return a place with two deployed workloads, worked on whenever a command pauses."""
    place.template("postgres")
    place.deploy(DATABASE, workload="web")
    place.deploy(DATABASE, workload="api")
    monkeypatch.setattr(time, "sleep", lambda seconds: work(QUEUE))
    return place


def test_all_workloads_are_removed(shop: Place) -> None:
    ran = run("teardown", *TARGET, "--wait")

    assert ran.status == 0
    assert "- destroy   postgres.default#api.db" in ran.out
    assert "✓ destroyed postgres.default#web.db" in ran.out
    assert set(shop.states().values()) == {"deleted"}


def test_one_workload_is_removed_and_the_other_stays(shop: Place) -> None:
    ran = run("teardown", *TARGET, "--workload", "api", "--wait")

    assert ran.status == 0
    assert shop.states() == {
        "private/shop/web/db/postgres.default": "active",
        "private/shop/api/db/postgres.default": "deleted",
    }


def test_its_plan_can_be_looked_at_first(shop: Place) -> None:
    before = Deployment.objects.count()

    ran = run("teardown", *TARGET, "--workload", "api", "--plan")

    assert ran.status == 0
    assert ran.out.startswith("Tear down shop (api) in dev\n")
    assert ran.out.endswith("Plan: 1 to destroy.\n")
    assert Deployment.objects.count() == before
    assert set(shop.states().values()) == {"active"}


def test_an_unknown_workload_is_a_wrong_call(shop: Place) -> None:
    before = Deployment.objects.count()

    ran = run("teardown", *TARGET, "--workload", "apj", "--wait")

    assert ran.status == 2
    assert "has no workload 'apj' in dev" in ran.err
    assert "api" in ran.err
    assert Deployment.objects.count() == before


def test_a_stranger_may_not_tear_down(shop: Place, bob: User) -> None:
    ran = run("teardown", *TARGET, "--as", "bob")

    assert ran.status == 2
    assert set(shop.states().values()) == {"active"}
