from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.drivers.base import LeaseLostError
from provisioning.models import LogChunk, Step
from provisioning.services.outputs import MASK
from provisioning.workers import logs
from provisioning.workers.logs import Log
from provisioning.workers.masking import Mask
from provisioning.workers.tasks import claim
from tests.provisioning.place import Place

SECRET = "correct-horse-battery"


@pytest.fixture
def step(place: Place) -> Step:
    place.template("part")
    place.submit("  one:\n    type: part\n")
    step = claim("default")
    assert step is not None
    return step


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


@pytest.mark.parametrize(
    ("value", "text", "hidden"),
    [
        ("line one\nline two\n}", "line one\nline two\n}", f"{MASK}\n{MASK}\n}}"),
        ({"a": ["deep-secret"]}, "a deep-secret", f"a {MASK}"),
        (90817263, "port 90817263", f"port {MASK}"),
        ('quo"ted', 'json "quo\\"ted"', f'json "{MASK}"'),
        ("abc", "abc abcd", f"{MASK} abcd"),
        ("", "nothing", "nothing"),
        (True, "true True 1", "true True 1"),
    ],
)
def test_every_form_of_a_secret_is_masked(value: object, text: str, hidden: str) -> None:
    mask = Mask()
    mask.add(value)

    assert mask.hide(text) == hidden


@given(st.lists(st.text("ab-", min_size=4, max_size=6), max_size=4), st.text("ab-", max_size=40))
def test_no_secret_is_left_after_masking(secrets: list[str], text: str) -> None:
    mask = Mask()
    mask.add(secrets)

    assert not any(secret in mask.hide(text) for secret in secrets)


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


def test_the_log_of_an_older_attempt_is_refused(step: Step) -> None:
    log = Log(step, Mask())
    log.add("too late\n", "stdout", "info")
    Step.objects.filter(pk=step.pk).update(attempt=2)

    with pytest.raises(LeaseLostError):
        log.close()

    assert stored() == ""
