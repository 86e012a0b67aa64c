from __future__ import annotations

from typing import Any

import pytest

from provisioning.models import Deployment, LogChunk, Step
from provisioning.services.deployments import end, finish
from provisioning.services.logs import reading
from provisioning.services.logs.announcing import News
from provisioning.services.logs.cursor import Cursor
from provisioning.services.logs.reading import LogReader, Piece, read_all, read_tail
from tests.provisioning.place import Place
from tests.provisioning.services.logs.saying import claimed, next_attempt, say

EVERYTHING = News(everything=True)


def texts(piece: Piece) -> list[str]:
    return [entry.text for entry in piece.entries]


def news_of(*steps: Step) -> News:
    return News(steps={step.pk for step in steps})


def ended(step: Step) -> None:
    finish.finish_unchanged(step, "")
    end.advance(step.deployment_id)


def test_each_reading_goes_on_where_the_last_ended(place: Place) -> None:
    one, two = claimed(place, 2)
    reader = LogReader(one.deployment_id)
    log = say(one, "1a\n", "1b\n")
    assert texts(reader.read(EVERYTHING)) == ["1a\n", "1b\n"]

    say(two, "2a\n")
    say(one, "1c\n", log=log)

    assert texts(reader.read(news_of(two))) == ["2a\n"]
    assert texts(reader.read(news_of(one, two))) == ["1c\n"]
    assert texts(reader.read(EVERYTHING)) == []


def test_what_becomes_visible_late_is_not_left_out(place: Place) -> None:
    """A worker's chunk may have a lower number and time than one of another that was read before."""
    one, two = claimed(place, 2)
    reader = LogReader(one.deployment_id)
    say(one, "first\n")
    say(two, "second\n")
    late = LogChunk.objects.get(step=one)
    LogChunk.objects.filter(pk=late.pk).delete()
    assert texts(reader.read(EVERYTHING)) == ["second\n"]

    late.save(force_insert=True)

    assert texts(reader.read(EVERYTHING)) == ["first\n"]


def test_a_cursor_goes_on_in_another_process(place: Place) -> None:
    one, two = claimed(place, 2)
    log = say(one, "1a\n")
    first = LogReader(one.deployment_id)
    first.read(EVERYTHING)
    say(one, "1b\n", log=log)
    say(two, "2a\n")

    second = LogReader(one.deployment_id, cursor=Cursor.parse(str(first.cursor)))

    assert texts(second.read(EVERYTHING)) == ["1b\n", "2a\n"]


def test_the_next_attempt_comes_after_all_of_the_one_before(place: Place) -> None:
    (step,) = claimed(place)
    reader = LogReader(step.deployment_id)
    say(step, "1a\n", "1b\n")
    reader.read(EVERYTHING)

    say(next_attempt(step), "2a\n")
    piece = reader.read(news_of(step))

    assert [(entry.attempt, entry.sequence) for entry in piece.entries] == [(2, 0)]
    assert str(reader.cursor) == f"{step.pk}:2.0"


def test_masking_what_was_stored_makes_nothing_come_again(place: Place) -> None:
    (step,) = claimed(place)
    log = say(step, "made hunter2-secret\n")
    reader = LogReader(step.deployment_id)
    reader.read(EVERYTHING)

    log._mask.add("hunter2-secret")
    log.close()

    assert texts(reader.read(EVERYTHING)) == []
    assert "hunter2" not in "".join(
        entry.text for some in read_all(step.deployment_id) for entry in some
    )


def test_much_is_read_in_pieces(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "CHUNKS_AT_ONCE", 3)
    monkeypatch.setattr(reading, "STEPS_AT_ONCE", 2)
    steps = claimed(place, 5)
    for step in steps:
        say(step, *(f"{step.pk}/{number}\n" for number in range(4)))
    reader = LogReader(steps[0].deployment_id)

    pieces = [reader.read(EVERYTHING)]
    while pieces[-1].more:
        pieces.append(reader.read(News()))

    assert max(len(piece.entries) for piece in pieces) == 3
    said = [text for piece in pieces for text in texts(piece)]
    assert said == [f"{step.pk}/{number}\n" for step in steps for number in range(4)]
    assert said == [entry.text for some in read_all(steps[0].deployment_id) for entry in some]


def test_it_is_over_when_everything_said_was_read(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "CHUNKS_AT_ONCE", 1)
    (step,) = claimed(place)
    reader = LogReader(step.deployment_id)
    assert not reader.read(EVERYTHING).over
    say(step, "one\n", "two\n")
    ended(step)

    pieces = [reader.read(EVERYTHING), reader.read(News()), reader.read(News())]

    assert [(texts(piece), piece.over) for piece in pieces] == [
        (["one\n"], False),
        (["two\n"], False),
        ([], True),
    ]
    assert reader.status == "succeeded"
    assert texts(reader.read(news_of(step))) == []
    assert str(reader.cursor) == f"{step.pk}"


def test_one_step_is_read_alone(place: Place) -> None:
    one, two = claimed(place, 2)
    say(one, "1a\n")
    say(two, "2a\n")
    reader = LogReader(one.deployment_id, step_id=two.pk)

    assert texts(reader.read(EVERYTHING)) == ["2a\n"]
    assert texts(reader.read(news_of(one))) == []
    ended(two)
    assert reader.read(news_of(two)).over


def test_a_change_of_a_status_is_told_once(place: Place) -> None:
    (step,) = claimed(place)
    reader = LogReader(step.deployment_id)
    assert reader.read(EVERYTHING).changed
    assert not reader.read(EVERYTHING).changed

    next_attempt(step)

    assert reader.read(news_of(step)).changed
    assert not reader.read(EVERYTHING).changed


def test_reading_on_takes_two_queries_however_many_steps_there_are(
    place: Place, django_assert_num_queries: Any
) -> None:
    steps = claimed(place, 6)
    reader = LogReader(steps[0].deployment_id)
    reader.read(EVERYTHING)
    for step in steps:
        say(step, "more\n")

    with django_assert_num_queries(2):
        assert len(reader.read(news_of(*steps)).entries) == 6


def test_the_end_of_a_log_and_what_follows_it_are_the_whole(place: Place) -> None:
    one, two, silent = claimed(place, 3)
    log = say(one, "1a\n", "1b\n")
    say(two, "2a\n")
    ended(two)

    tail = read_tail(one.deployment_id, chunks=2, characters=1000)
    say(one, "1c\n", log=log)

    assert [entry.text for entry in tail.entries] == ["1b\n", "2a\n"]
    assert tail.shortened
    assert str(tail.cursor) == f"{two.pk},{one.pk}:1.1"
    say(silent, "3a\n")
    reader = LogReader(one.deployment_id, cursor=Cursor.parse(str(tail.cursor)))
    assert texts(reader.read(EVERYTHING)) == ["1c\n", "3a\n"]


def test_the_end_of_a_log_has_a_limited_size(place: Place) -> None:
    (step,) = claimed(place)
    say(step, "x" * 50 + "\n", "y" * 50 + "\n", "z\n")

    tail = read_tail(step.deployment_id, chunks=10, characters=20)

    assert [entry.text for entry in tail.entries] == ["y" * 50 + "\n", "z\n"]
    assert tail.shortened
    assert not read_tail(step.deployment_id, chunks=3, characters=1000).shortened


def test_a_log_that_is_not_there_cannot_be_read(db: None) -> None:
    with pytest.raises(Deployment.DoesNotExist):
        LogReader(1).read(EVERYTHING)
