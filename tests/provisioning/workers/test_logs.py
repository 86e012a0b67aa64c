from __future__ import annotations

import itertools
from copy import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provisioning.drivers.base import LeaseLostError
from provisioning.drivers.output import printable
from provisioning.models import LogChunk, Step, StepStatus
from provisioning.services.outputs import MASK
from provisioning.workers import logs
from provisioning.workers.logs import Log
from provisioning.workers.masking import Mask
from provisioning.workers.tasks import claim
from tests.provisioning.place import Place

SECRET = "correct-horse-battery"


pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def claimed(lasting_place: Place) -> Step:
    lasting_place.template("part")
    lasting_place.submit("  one:\n    type: part\n")
    step = claim("default")
    assert step is not None
    return step


@pytest.fixture
def step(claimed: Step) -> Step:
    return copy(claimed)


@pytest.fixture
def mask() -> Mask:
    mask = Mask()
    mask.add(SECRET)
    return mask


def stored() -> str:
    return "".join(LogChunk.objects.order_by("sequence").values_list("text", flat=True))


def test_a_secret_is_masked_wherever_it_stands(step: Step, mask: Mask) -> None:
    log = Log(step, mask)
    log.add(f"password={SECRET}; again {SECRET}\n", "stdout", "info")
    log.close()

    assert stored() == f"password={MASK}; again {MASK}\n"


@pytest.mark.parametrize("cut", range(1, len(SECRET)))
def test_a_secret_that_comes_in_two_pieces_is_masked(step: Step, mask: Mask, cut: int) -> None:
    log = Log(step, mask)
    log.add(SECRET[:cut], "stdout", "info")
    log.flush()
    log.add(SECRET[cut:] + "\n", "stdout", "info")
    log.close()

    assert stored() == MASK + "\n"


def test_a_secret_that_was_logged_before_it_was_known_is_masked_at_the_end(step: Step) -> None:
    mask = Mask()
    log = Log(step, mask)
    log.add(f"made {SECRET}\n", "stdout", "info")
    log.flush()
    mask.add(SECRET)
    log.close()

    assert stored() == f"made {MASK}\n"


def test_a_later_attempt_masks_what_one_that_died_has_logged(step: Step) -> None:
    died = Log(step, Mask())
    died.add(f"made {SECRET}\n", "stdout", "info")
    died.flush()
    Step.objects.update(attempt=2)
    step.attempt = 2
    mask = Mask()
    mask.add(SECRET)
    log = Log(step, mask)
    log.add(f"found {SECRET}\n", "stdout", "info")
    log.close()

    assert sorted(LogChunk.objects.values_list("attempt", "text")) == [
        (1, f"made {MASK}\n"),
        (2, f"found {MASK}\n"),
    ]


@pytest.mark.parametrize("before", [0, 1, 5, len(SECRET) - 1, len(SECRET), len(SECRET) + 3])
def test_a_secret_in_a_line_without_end_is_masked(
    step: Step, mask: Mask, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    monkeypatch.setattr(logs, "CHUNK_CHARACTERS", 32)
    log = Log(step, mask)
    for character in "x" * before + SECRET + "y" * 60 + SECRET:
        log.add(character, "stdout", "info")
    log.close()

    assert stored() == "x" * before + MASK + "y" * 60 + MASK


# Each example writes anew what it looks at, so they may share the step.
sharing_the_step = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
words = st.sampled_from(
    [SECRET, "correct-", "horse", "\n", "\x1b[31m", "\x1b]0;title\x07", "é", "x"]
)


@sharing_the_step
@given(text=st.lists(words, max_size=12).map("".join), cuts=st.lists(st.integers(0, 99)))
def test_in_whatever_pieces_a_text_comes_the_same_is_stored(
    step: Step, mask: Mask, text: str, cuts: list[int]
) -> None:
    LogChunk.objects.all().delete()
    log = Log(step, mask)
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    for start, end in itertools.pairwise(places):
        log.add(text[start:end], "stdout", "info")
        log.flush()
    log.close()

    assert stored() == mask.hide(printable(text))


def test_a_secret_known_too_late_is_masked_across_chunks(
    step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "CHUNK_CHARACTERS", 10)
    mask = Mask()
    log = Log(step, mask)
    for piece in ("x" * 8 + SECRET[:12], SECRET[12:] + "y" * 12 + "\n"):
        log.add(piece, "stdout", "info")
        log.flush()
        log.add("other\n", "stderr", "error")
        log.flush()
    mask.add(SECRET)
    log.close()

    said = LogChunk.objects.filter(stream="stdout").order_by("sequence")
    assert len(said) > 2
    assert "".join(chunk.text for chunk in said) == "x" * 8 + MASK + "y" * 12 + "\n"


def test_control_characters_are_removed(step: Step) -> None:
    log = Log(step, Mask())
    log.add("\x1b[31mred\x1b[0m\x00\x07\ttab\r\n", "stderr", "error")
    log.close()

    chunk = LogChunk.objects.get()
    assert (chunk.text, chunk.stream, chunk.level) == ("red\ttab\n", "stderr", "error")


def test_a_control_character_does_not_hide_a_secret(step: Step, mask: Mask) -> None:
    log = Log(step, mask)
    log.add(f"{SECRET[:5]}\x1b[0m{SECRET[5:]}\n", "stdout", "info")
    log.close()

    assert stored() == MASK + "\n"


def test_a_log_that_is_too_long_ends_with_a_mark(
    step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MOST_CHARACTERS", 10)
    log = Log(step, Mask())
    for _ in range(5):
        log.add("12345\n", "stdout", "info")
    log.close()

    assert stored() == "12345\n1234\n" + logs.TOO_LONG


def test_a_log_that_is_too_long_still_tells_of_the_end(
    step: Step, mask: Mask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MOST_CHARACTERS", 10)
    log = Log(step, mask)
    log.add("12345\n123456\nunfinished", "stdout", "info")
    log.end_with(f"It failed with {SECRET}.\n", "error")
    log.close()
    log.close()

    assert stored() == f"12345\n1234\n{logs.TOO_LONG}It failed with {MASK}.\n"
    assert LogChunk.objects.last().level == "error"  # type: ignore[union-attr]


def test_the_end_comes_after_unfinished_lines(step: Step) -> None:
    log = Log(step, Mask())
    log.add("half a li", "stdout", "error")
    log.add("half a li", "stderr", "error")
    log.end_with("It failed.\n", "error")
    log.close()

    assert stored().endswith("It failed.\n")


def test_lines_are_stored_soon_and_in_order(step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FLUSH_SECONDS", 0.0)
    log = Log(step, Mask())
    log.add("one\ntw", "stdout", "info")
    log.flush_if_due()
    assert stored() == "one\n"

    log.add("o\n", "stdout", "info")
    log.flush_if_due()
    log.add("oops\n", "stderr", "error")
    log.flush_if_due()

    chunks = LogChunk.objects.order_by("sequence").values_list("attempt", "sequence", "text")
    assert list(chunks) == [(1, 0, "one\n"), (1, 1, "two\n"), (1, 2, "oops\n")]


def test_a_line_without_end_of_a_hundred_megabytes_is_cut(step: Step, mask: Mask) -> None:
    log = Log(step, mask)
    for _ in range(100):
        log.add("x" * 1_000_000, "stdout", "info")
        log.flush_if_due()
    log.close()

    texts = list(LogChunk.objects.order_by("sequence").values_list("text", flat=True))
    assert max(map(len, texts)) == logs.CHUNK_CHARACTERS
    assert "".join(texts) == "x" * logs.MOST_CHARACTERS + "\n" + logs.TOO_LONG


def test_a_secret_at_the_end_of_a_log_that_is_too_long_is_not_cut(
    step: Step, mask: Mask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MOST_CHARACTERS", 10)
    log = Log(step, mask)
    log.add(f"it is {SECRET}\n", "stdout", "info")
    log.close()

    assert stored() == "it is \n" + logs.TOO_LONG


def test_what_was_stored_before_the_answer_was_lost_is_not_stored_twice(step: Step) -> None:
    for _ in range(2):
        log = Log(step, Mask())
        log.add("one\n", "stdout", "info")
        log.flush()

    assert stored() == "one\n"


def test_storing_takes_one_query_however_much_there_is(
    step: Step, django_assert_num_queries: Any
) -> None:
    log = Log(step, Mask())
    for number in range(1000):
        log.add(f"{number}\n", ("stdout", "stderr")[number % 2], "info")

    with django_assert_num_queries(1):
        log.flush()

    assert LogChunk.objects.count() == 1000


@pytest.mark.parametrize(
    "taken", [{"attempt": 2}, {"status": StepStatus.RECOVERING}, {"status": StepStatus.PENDING}]
)
def test_a_worker_that_lost_the_step_stores_nothing(step: Step, taken: dict[str, Any]) -> None:
    log = Log(step, Mask())
    log.add("too late\n", "stdout", "info")
    Step.objects.filter(pk=step.pk).update(**taken)

    with pytest.raises(LeaseLostError):
        log.close()

    assert stored() == ""


def test_a_worker_that_lost_the_step_masks_nothing(step: Step) -> None:
    mask = Mask()
    log = Log(step, mask)
    log.add(f"made {SECRET}\n", "stdout", "info")
    log.flush()
    mask.add(SECRET)
    Step.objects.filter(pk=step.pk).update(attempt=2)

    with pytest.raises(LeaseLostError):
        log.close()

    assert stored() == f"made {SECRET}\n"
