from __future__ import annotations

from typing import Any

import pytest

from provisioning.durations import DurationError, duration_text, read_duration


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (90, 90),
        ("90", 90),
        ("45s", 45),
        ("30m", 1800),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1h1s", 3601),
    ],
)
def test_a_length_of_time_is_read(written: Any, seconds: int) -> None:
    assert read_duration(written) == seconds


@pytest.mark.parametrize(
    "written",
    [
        0,
        -1,
        True,
        None,
        1.5,
        "",
        "0s",
        "30 m",
        "m",
        "1m1h",
        "-5s",
        "٣0m",
        "99999h",
        "9" * 400,
        [60],
    ],
)
def test_anything_else_is_refused_with_how_to_write_it(written: Any) -> None:
    with pytest.raises(
        DurationError, match="write seconds, or hours, minutes and seconds like 30m"
    ):
        read_duration(written)


@pytest.mark.parametrize(
    ("seconds", "text"), [(45, "45 s"), (1800, "30 min"), (5400, "1 h 30 min"), (3601, "1 h 1 s")]
)
def test_a_length_of_time_is_written_for_a_person(seconds: int, text: str) -> None:
    assert duration_text(seconds) == text
