from __future__ import annotations

import asyncio
import itertools
import threading
import time

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client

from portal.views import events
from provisioning.models import Membership, Step
from provisioning.services import transitions
from provisioning.services.deployments import end, finish
from provisioning.services.logs.broker import Broker
from provisioning.workers.logs import Log
from provisioning.workers.masking import Mask
from tests.portal.serving import Event, Portal, Stream, portal
from tests.provisioning.place import Place
from tests.provisioning.services.logs.saying import claimed, next_attempt, say
from tests.provisioning.services.logs.test_following import in_thread

__all__ = ["portal"]

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def steps(place: Place, alice: User) -> list[Step]:
    """Return the running steps of a deployment that alice may see."""
    place.application("shop", alice)
    return claimed(place, 3)


def ended(*steps: Step) -> None:
    for step in steps:
        finish.finish_unchanged(step, "")
        end.advance(step.deployment_id)


def said(events: list[Event]) -> list[str]:
    return [chunk["text"] for event in events if event.name == "log" for chunk in event.data]


def until(stream: Stream, text: str) -> list[Event]:
    """Return the events up to the one in which this text is said."""
    seen = []
    for event in stream.events():
        seen.append(event)
        if text in said([event]):
            return seen
    raise AssertionError(f"The stream ended without {text!r}: {seen}")


def test_what_is_said_arrives_with_its_step_level_and_time(
    portal: Portal, steps: list[Step], alice: User
) -> None:
    step = steps[0]
    with portal.stream(step.deployment_id, alice) as stream:
        assert stream.answer.status == 200
        assert stream.answer.headers["Content-Type"] == "text/event-stream"
        assert stream.answer.headers["Cache-Control"] == "no-store, no-transform"
        log = Log(step, Mask())
        log.add("no\n", "stderr", "error")
        log.flush()
        event = until(stream, "no\n")[-1]

    (chunk,) = event.data
    assert chunk.pop("at").startswith("20")
    assert chunk == {
        "step": step.pk,
        "resource": step.resource.uid,
        "action": "ensure",
        "attempt": 1,
        "stream": "stderr",
        "level": "error",
        "text": "no\n",
    }
    assert event.id == f"{step.pk}:1.0"


def test_it_begins_with_when_to_come_back_and_ends_with_the_deployment(
    portal: Portal, steps: list[Step], alice: User
) -> None:
    say(steps[0], "one\n")
    with portal.stream(steps[0].deployment_id, alice) as stream:
        assert next(stream.lines()) == "retry: 1000"
        until(stream, "one\n")
        ended(*steps)
        rest = list(stream.events())

    assert [event.name for event in rest][-1] == "end"
    assert rest[-1].data == {"status": "succeeded"}
    assert {event.name for event in rest[:-1]} <= {"status"}


def test_statuses_that_change_are_told(portal: Portal, steps: list[Step], alice: User) -> None:
    with portal.stream(steps[0].deployment_id, alice) as stream:
        read = stream.events()
        assert next(read) == Event("status", {"status": "running"}, "")
        transitions.move(steps[0], "recovering", reason="Its worker was lost.")
        assert next(read) == Event("status", {"status": "running"}, "")


def test_who_comes_back_hears_the_rest_and_nothing_twice(
    portal: Portal, steps: list[Step], alice: User
) -> None:
    one, two, _ = steps
    deployment = one.deployment_id
    log = say(one, "1a\n")
    with portal.stream(deployment, alice) as stream:
        last = until(stream, "1a\n")[-1].id
    say(one, "1b\n", log=log)
    say(two, "2a\n")
    ended(two)

    with portal.stream(deployment, alice, last=last) as stream:
        seen = until(stream, "2a\n")
    assert said(seen) == ["1b\n", "2a\n"]
    assert seen[-1].id == f"{two.pk},{one.pk}:1.1"

    say(next_attempt(one), "1c\n")
    with portal.stream(deployment, alice, last=seen[-1].id) as stream:
        assert said(until(stream, "1c\n")) == ["1c\n"]
    with portal.stream(deployment, alice, after=last) as stream:
        assert said(until(stream, "2a\n")) == ["1b\n", "1c\n", "2a\n"]


def test_coming_back_every_100_ms_leaves_nothing_out_and_brings_nothing_twice(
    portal: Portal, steps: list[Step], alice: User
) -> None:
    """Three workers speak at once, one of them is replaced, and the reader never stays long."""
    speaking = [in_thread(lambda step=step: speak(step, 200)) for step in steps]
    last, heard, visits = "", [], 0
    over = False
    while not over:
        visits += 1
        leave = time.monotonic() + 0.1
        with portal.stream(steps[0].deployment_id, alice, last=last) as stream:
            for event in stream.events():
                if event.name == "log":
                    heard += [(chunk["step"], chunk["text"]) for chunk in event.data]
                    last = event.id
                over = event.name == "end"
                if time.monotonic() > leave:
                    break
    for thread in speaking:
        thread.join()

    assert visits > 5
    for step in steps:
        text = "".join(text for speaker, text in heard if speaker == step.pk)
        assert text == "".join(f"{number}\n" for number in range(200))


def speak(step: Step, lines: int) -> None:
    """Say numbers over some seconds, half of them as another attempt."""
    for numbers in (range(lines // 2), range(lines // 2, lines)):
        log = Log(step, Mask())
        for number in numbers:
            log.add(f"{number}\n", "stdout", "info")
            log.flush_if_due()
            threading.Event().wait(0.008)
        log.close()
        if numbers.start == 0:
            next_attempt(step)
    ended(step)


def test_whatever_a_tool_says_is_one_event(portal: Portal, steps: list[Step], alice: User) -> None:
    forged = '\n\nevent: end\ndata: {"status": "succeeded"}\n\nid: 9\r\r<script>alert(1)</script>\n'
    with portal.stream(steps[0].deployment_id, alice) as stream:
        say(steps[0], forged)
        seen = until(stream, forged.replace("\r", ""))

    assert "end" not in {event.name for event in seen}


def test_one_step_is_streamed_alone_until_it_ends(
    portal: Portal, steps: list[Step], alice: User
) -> None:
    one, two, _ = steps
    say(one, "1\n")
    say(two, "2\n")
    ended(two)

    with portal.stream(one.deployment_id, alice, step=two.pk) as stream:
        seen = list(stream.events())

    assert said(seen) == ["2\n"]
    assert seen[-1].name == "end"


@pytest.mark.parametrize(
    ("who", "query", "status"),
    [
        (None, {}, 401),
        ("bob", {}, 404),
        ("alice", {"step": "x"}, 400),
        ("alice", {"after": "x"}, 400),
        ("alice", {"step": 0}, 404),
        ("alice", {"step": 10**30}, 404),
    ],
)
def test_others_and_wrong_questions_get_no_stream(
    portal: Portal,
    steps: list[Step],
    alice: User,
    bob: User,
    who: str | None,
    query: dict,
    status: int,
) -> None:
    user = {"alice": alice, "bob": bob, None: None}[who]

    with portal.stream(steps[0].deployment_id, user, **query) as stream:
        assert (stream.answer.status, list(stream.lines())) in (
            (status, []),
            (status, ["The query cannot be read."]),
        )


@pytest.mark.parametrize("loss", ["logged out", "left the team"])
def test_who_may_not_see_it_any_more_is_cut_off(
    portal: Portal, steps: list[Step], alice: User, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    monkeypatch.setattr(events, "CHECK_SECONDS", 0.0)
    with portal.stream(steps[0].deployment_id, alice) as stream:
        say(steps[0], "one\n")
        until(stream, "one\n")
        if loss == "logged out":
            Session.objects.all().delete()
        else:
            Membership.objects.all().delete()

        say(steps[1], "two\n")

        assert said(list(stream.events())) == []


def test_a_quiet_stream_shows_that_it_lives(
    portal: Portal, steps: list[Step], alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "BEAT_SECONDS", 0.0)
    monkeypatch.setattr(events, "LOOK_AGAIN_SECONDS", 0.01)

    with portal.stream(steps[0].deployment_id, alice) as stream:
        assert ": still here" in itertools.islice(stream.lines(), 20)


def test_a_lost_database_connection_loses_nothing(
    portal: Portal, steps: list[Step], alice: User
) -> None:
    with portal.stream(steps[0].deployment_id, alice) as stream:
        log = say(steps[0], "one\n")
        until(stream, "one\n")
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            assert cursor.fetchone()[0] >= 1  # at least the one that listens
        say(steps[0], "two\n", log=log)

        assert said(until(stream, "two\n")) == ["two\n"]


def test_without_asgi_there_are_no_events(client: Client, steps: list[Step], alice: User) -> None:
    client.force_login(alice)

    assert client.get(f"/deployments/{steps[0].deployment_id}/log/events/").status_code == 501


def test_whom_a_stream_does_not_interest_any_more_is_forgotten() -> None:
    async def visit() -> None:
        broker = Broker()
        with broker.subscribe(1), broker.subscribe(1) as second:
            assert (await second.news(1)).everything
            assert not await second.news(0)
        assert broker._subscriptions == {}

    asyncio.run(visit())
