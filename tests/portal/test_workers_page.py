from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from provisioning.models import AuditEvent, Step, Worker
from provisioning.services.people import system_user
from provisioning.workers.tasks import claim
from tests.provisioning.place import Place

HTMX = {"HX-Request": "true"}


@pytest.fixture
def staff(client: Client, db: None) -> Client:
    """Return a client in which a platform engineer is logged in."""
    client.force_login(system_user())
    return client


def worker(host: str = "alpha", **fields: Any) -> Worker:
    return Worker.objects.create(
        **{
            "host": host,
            "pid": 7,
            "version": "1.2.3",
            "queues": ["default", "production"],
            "tools": {"terraform": "1.11.4"},
            "last_seen_at": timezone.now(),
            **fields,
        }
    )


def test_a_worker_is_shown_with_what_it_is_at_work_on(staff: Client, place: Place) -> None:
    place.template("part")
    deployment = place.submit("  one:\n    type: part\n")
    claim("default")
    Step.objects.update(worker=worker())

    html = staff.get("/workers/").content.decode()

    for text in ("alpha", ":7", "1.2.3", "default, production", "terraform", "1.11.4", "alive"):
        assert text in html
    assert "part.default#web.one" in html
    assert f'href="/deployments/{deployment.pk}/steps/{Step.objects.get().pk}/log/"' in html


def test_states_are_told_apart(staff: Client) -> None:
    worker("one")
    worker("two", draining=True)
    worker("three", last_seen_at=timezone.now() - timedelta(minutes=1))
    worker("four", stopped_at=timezone.now())
    worker("five", last_seen_at=timezone.now() - timedelta(days=2))

    html = staff.get("/workers/", headers=HTMX).content.decode()

    assert [html.count(f">{state}<") for state in ("alive", "draining", "dead", "stopped")] == [
        1, 1, 1, 1,
    ]  # fmt: skip
    assert "five" not in html
    assert "<html" not in html


def test_queries_do_not_grow_with_the_workers(
    staff: Client, django_assert_num_queries: Any
) -> None:
    for number in range(10):
        worker(f"host-{number}")

    with django_assert_num_queries(5):  # session, user, workers, their steps, maintenance
        staff.get("/workers/")


def test_a_worker_is_drained_and_resumed(staff: Client) -> None:
    one = worker()

    html = staff.post(f"/workers/{one.pk}/draining/", {"draining": "yes"}, headers=HTMX)
    assert b">draining<" in html.content
    one.refresh_from_db()
    assert one.draining is True
    answer = staff.post(f"/workers/{one.pk}/draining/", {"draining": "no"})

    assert answer.headers["Location"] == "/workers/"
    one.refresh_from_db()
    assert one.draining is False
    assert AuditEvent.objects.filter(action="worker.draining").count() == 1


@pytest.mark.parametrize("url", ["/workers/", "/health/"])
def test_the_pages_are_for_staff(client: Client, alice: User, url: str) -> None:
    assert client.get(url).headers["Location"] == f"/accounts/login/?next={url}"
    client.force_login(alice)
    assert client.get(url).status_code == 403
    assert url not in client.get("/deployments/").content.decode()


def test_others_drain_nobody(client: Client, alice: User) -> None:
    one = worker()
    client.force_login(alice)

    answer = client.post(f"/workers/{one.pk}/draining/", {"draining": "yes"})

    assert answer.status_code == 403
    one.refresh_from_db()
    assert one.draining is False


def test_an_unknown_worker_is_not_found(staff: Client) -> None:
    url = "/workers/00000000-0000-0000-0000-000000000000/draining/"

    assert staff.post(url, {"draining": "yes"}).status_code == 404
