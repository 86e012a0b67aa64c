from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.services.logs.cursor import BEGINNING, Cursor, CursorError


def test_a_cursor_is_a_short_text() -> None:
    cursor = Cursor()
    cursor.advance(41, (2, 0))
    cursor.advance(40, (1, 17))
    for step in (7, 5, 9, 6):
        cursor.finish(step)

    assert str(cursor) == "5-7,9,40:1.17,41:2.0"


def test_a_step_that_is_done_has_no_place_any_more() -> None:
    cursor = Cursor.parse("40:1.17,41:2.0")

    cursor.finish(40)

    assert str(cursor) == "40,41:2.0"
    assert cursor.is_done(40)
    assert not cursor.is_done(41)
    assert (cursor.place(41), cursor.place(42)) == ((2, 0), BEGINNING)


@given(st.sets(st.integers(1, 60)), st.dictionaries(st.integers(61, 90), st.integers(0, 9)))
def test_a_cursor_is_read_as_it_was_written(done: set[int], places: dict[int, int]) -> None:
    cursor = Cursor()
    for step, sequence in places.items():
        cursor.advance(step, (1, sequence))
    for step in done:
        cursor.finish(step)

    again = Cursor.parse(str(cursor))

    assert str(again) == str(cursor)
    assert {step for step in range(100) if again.is_done(step)} == done
    assert all(again.place(step) == (1, sequence) for step, sequence in places.items())


@pytest.mark.parametrize(
    "text",
    ["x", "1:2", "1.2", "1-", ",", "1,", "-1", "1:1.1.1", "1" * 30, "²", "1," * 40_000 + "1"],
)
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(CursorError, match="does not say how far a log was read"):
        Cursor.parse(text)
