from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from django.db import connection, transaction

from provisioning.models import Step
from provisioning.services.deployments import end, finish
from provisioning.services.logs import following
from provisioning.services.logs.announcing import CHANNEL, MOST_STEPS, News
from provisioning.services.logs.following import Listener, follow
from provisioning.services.logs.reading import LogReader
from provisioning.workers.logs import Log
from tests.provisioning.place import Place
from tests.provisioning.services.logs.saying import claimed, say

pytestmark = pytest.mark.django_db(transaction=True)

NEVER = 60.0


def in_thread(work: Callable[[], None]) -> threading.Thread:
    """Do something beside the test, on a connection of its own."""

    def run() -> None:
        try:
            work()
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_news_are_heard_when_they_can_be_read(place: Place) -> None:
    one, two = claimed(place, 2)
    with Listener(one.deployment_id) as listener:
        assert listener.wait(NEVER) == News(everything=True)

        with transaction.atomic():
            say(one, "1\n")
            assert listener.wait(0.05) == News(everything=True)  # nothing was heard in this time
        assert listener.wait(NEVER) == News(steps={one.pk})
        say(two, "2\n")
        assert listener.wait(NEVER) == News(steps={two.pk})


def test_what_is_undone_is_not_heard(place: Place) -> None:
    (step,) = claimed(place)
    with Listener(step.deployment_id) as listener:
        listener.wait(NEVER)

        with transaction.atomic():
            say(step, "1\n")
            transaction.set_rollback(True)

        assert listener.wait(0.05) == News(everything=True)


def test_a_step_that_ends_is_news_of_it_and_of_its_deployment(place: Place) -> None:
    (step,) = claimed(place)
    with Listener(step.deployment_id) as listener:
        listener.wait(NEVER)

        finish.finish_unchanged(step, "")
        assert listener.wait(NEVER) == News(steps={step.pk})
        end.advance(step.deployment_id)
        assert listener.wait(NEVER) == News(everything=True)


def test_other_deployments_are_not_heard(place: Place) -> None:
    (step,) = claimed(place)
    with Listener(step.deployment_id + 1) as listener:
        listener.wait(NEVER)

        say(step, "1\n")

        assert listener.wait(0.05) == News(everything=True)


def test_news_name_nothing_but_deployment_and_step(place: Place) -> None:
    (step,) = claimed(place)
    own = connection.copy()
    with own.cursor() as cursor:
        cursor.execute(f"LISTEN {CHANNEL}")

    say(step, "a-secret-word\n")

    heard = [notify.payload for notify in own.connection.notifies(timeout=NEVER, stop_after=1)]
    own.close()
    assert heard == [f"{step.deployment_id} {step.pk}"]


def test_many_steps_at_once_are_one_piece_of_news() -> None:
    news = News()
    for step in range(MOST_STEPS + 1):
        news.add(step)

    assert news == News(everything=True)


def test_a_log_is_followed_to_its_end(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LOOK_AGAIN_SECONDS", NEVER)
    (step,) = claimed(place)
    log = say(step, "0\n")
    said = []
    pieces = follow(LogReader(step.deployment_id))
    said += [entry.text for entry in next(pieces).entries]

    speaking = in_thread(lambda: speak_and_end(step, log))
    for piece in pieces:
        said += [entry.text for entry in piece.entries]

    speaking.join()
    assert said == [f"{number}\n" for number in range(50)]


def test_a_lost_connection_loses_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "RETRY_SECONDS", 0.01)
    (step,) = claimed(place)
    log = say(step, "0\n")
    said = []
    pieces = follow(LogReader(step.deployment_id))
    said += [entry.text for entry in next(pieces).entries]
    others = connection.copy()
    with others.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert cursor.fetchone()[0] >= 2  # the reader's, the listener's
    others.close()

    speaking = in_thread(lambda: speak_and_end(step, log))
    for piece in pieces:
        said += [entry.text for entry in piece.entries]

    speaking.join()
    assert said == [f"{number}\n" for number in range(50)]


def speak_and_end(step: Step, log: Log) -> None:
    say(step, *(f"{number}\n" for number in range(1, 50)), log=log)
    finish.finish_unchanged(step, "")
    end.advance(step.deployment_id)
