from __future__ import annotations

import base64
import json
import re
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.services.outputs import MASK
from provisioning.workers.masking import Mask

TRICKY = 'p"w\\d/<é>&😀 %+ü'
PEM = "-----BEGIN KEY-----\n" + "\n".join(4 * ["QUJDREVGR0g+/" * 4]) + "\n-----END KEY-----\n"
ALIGNMENTS = ["", "u", "u:", "user:", "user::", "user:::"]


def masking(*secrets: object) -> Mask:
    mask = Mask()
    for secret in secrets:
        mask.add(secret)
    return mask


@pytest.mark.parametrize(
    ("value", "text", "hidden"),
    [
        ("line one\nline two\n}", "line one\nline two\n}", f"{MASK}\n{MASK}\n}}"),
        ({"a": ["deep-secret"]}, "a deep-secret", f"a {MASK}"),
        (90817263, "port 90817263", f"port {MASK}"),
        ("abc", "abc abcd xabc", f"{MASK} abcd xabc"),
        ("a&b", "x=a%26b&y", f"x={MASK}&y"),
        ("ab\x07cd", "abcd ab\\u0007cd", f"{MASK} {MASK}"),
        ("", "nothing", "nothing"),
        (True, "true True 1", "true True 1"),
    ],
)
def test_values_of_every_kind_are_masked(value: object, text: str, hidden: str) -> None:
    assert masking(value).hide(text) == hidden


@pytest.mark.parametrize(
    "written",
    [
        TRICKY,
        json.dumps(TRICKY)[1:-1],
        json.dumps(TRICKY, ensure_ascii=False)[1:-1],
        json.dumps(TRICKY)[1:-1].replace("/", "\\/"),
        json.dumps(TRICKY)[1:-1].replace("\\ud83d\\ude00", "\\uD83D\\uDE00"),
        json.dumps(TRICKY, ensure_ascii=False)[1:-1]
        .replace("<", "\\u003c")
        .replace(">", "\\u003E")
        .replace("&", "\\u0026"),
        json.dumps(json.dumps(TRICKY)[1:-1])[1:-1],
        json.dumps(json.dumps(TRICKY)[1:-1])[1:-1].replace("<", "\\u003c").replace("&", "\\u0026"),
        quote(TRICKY),
        quote(TRICKY, safe=""),
        quote_plus(TRICKY),
        quote(TRICKY, safe="!$&'()*+,;=:@ "),
        re.sub("%..", lambda found: found[0].lower(), quote(TRICKY, safe="")),
    ],
)
def test_every_way_to_write_a_secret_is_masked(written: str) -> None:
    assert masking(TRICKY).hide(f"it is {written}.") == f"it is {MASK}."


@pytest.mark.parametrize("before", ALIGNMENTS)
@pytest.mark.parametrize("after", ["", "\n", "@host/database"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_is_masked_wherever_the_secret_begins_in_it(
    before: str, after: str, encode: type[base64.b64encode]
) -> None:
    secret = "~~~???>>>pw"
    text = encode(f"{before}{secret}{after}".encode()).decode()

    hidden = masking(secret).hide(text)

    kept = hidden.split(MASK)
    assert len(kept) == 2
    # What is left at both sides tells nothing but the neighbours, and at most some bits beside them.
    assert len(kept[0]) == -(-len(before) * 8 // 6)
    assert len(kept[1].rstrip("=")) <= -(-len(after) * 8 // 6) + 1


def test_base64_that_is_part_of_a_url_is_masked() -> None:
    secret = "~~~???>>>"

    assert masking(secret).hide("?t=fn5%2BPz8%2fPj4%2B&x") == f"?t={MASK}&x"


@pytest.mark.parametrize("width", [64, 76])
def test_base64_in_lines_is_masked(width: int) -> None:
    whole = base64.b64encode(PEM.strip().encode()).decode()
    lines = [whole[start : start + width] for start in range(0, len(whole), width)]

    assert masking(PEM).hide("\n".join(lines)) == "\n".join([MASK] * len(lines))


def test_a_secret_of_several_lines_is_masked_in_one_line_of_json_too() -> None:
    hidden = masking(PEM).hide(json.dumps({"key": PEM}))

    assert hidden == '{"key": "' + "\\n".join([MASK] * 6) + '\\n"}'


def test_secrets_that_overlap_are_masked_as_one() -> None:
    assert masking("abcdef", "defghi").hide("1abcdefghi2") == f"1{MASK}2"


def test_a_form_of_a_secret_in_a_value_is_found() -> None:
    mask = masking("correct-horse")

    assert mask.occurs_in({"header": ["Basic " + base64.b64encode(b"me:correct-horse").decode()]})
    assert not mask.occurs_in({"header": ["Basic", 1, None, "correct"]})


secrets = st.lists(st.text('ab-"\\%é', min_size=4, max_size=7), min_size=1, max_size=3)
texts = st.text('ab-"\\%é\n', max_size=40)


@given(secrets, texts)
def test_no_secret_is_left_after_masking(values: list[str], text: str) -> None:
    hidden = masking(values).hide(text)

    assert not any(value.strip() in hidden for value in values)


@given(st.text(min_size=4, max_size=20), st.text(max_size=5), st.text(max_size=5))
def test_no_encoding_lets_a_secret_through(secret: str, before: str, after: str) -> None:
    lines = [line.strip() for line in secret.splitlines()]
    mask = masking(secret)
    for line in lines if all(len(line) >= 4 for line in lines) else []:
        whole = f"{before}{line}{after}"
        for encoded, own in (
            (json.dumps(whole), json.dumps(line)[1:-1]),
            (json.dumps(json.dumps(whole)), json.dumps(json.dumps(line)[1:-1])[1:-1]),
            (quote(whole), quote(line)),
            (quote_plus(whole), quote_plus(line)),
        ):
            assert own not in mask.hide(encoded)


@given(secrets, st.lists(texts, max_size=5))
def test_pieces_are_masked_as_their_whole(values: list[str], pieces: list[str]) -> None:
    mask = masking(values)

    assert "".join(mask.hide_pieces(pieces)) == mask.hide("".join(pieces))


@given(secrets, texts, st.integers(0, 40))
def test_a_cut_cuts_no_secret_in_two(values: list[str], text: str, at: int) -> None:
    mask = masking(values)

    cut = mask.cut(text, min(at, len(text)))

    assert mask.hide(text[:cut]) + mask.hide(text[cut:]) == mask.hide(text)
