from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from provisioning.score.reader import RawDocument, read


def only(text: str) -> RawDocument:
    [document] = read(text)
    return document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("2026-11-20", "2026-11-20"),
        ("1_000", "1_000"),
        ("0o17", 15),
        ("017", 17),
        ("0x1F", 31),
        ("-12", -12),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("true", True),
        ("False", False),
        ("tRue", "tRue"),
        ("~", None),
        ("null", None),
        ("", None),
        ('"12"', "12"),
        ("'true'", "true"),
        ("!!str 12", "12"),
        ("!!int '12'", 12),
        ("+", "+"),
        (".", "."),
    ],
)
def test_a_scalar_is_what_yaml_1_2_says(text: str, value: Any) -> None:
    document = only(f"key: {text}\n")

    assert document.problems == []
    assert document.value == {"key": value}
    assert type(document.value["key"]) is type(value)


@pytest.mark.parametrize("text", [".inf", "-.INF", ".nan", "1e999", "9" * 5000])
def test_a_number_that_json_does_not_have_is_refused(text: str) -> None:
    [problem] = only(f"a: 1\nkey: {text}\n").problems

    assert (problem.line, problem.column, problem.path) == (2, 6, "key")
    assert problem.message.endswith("is not a value that JSON has.")


JSON_SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
JSON_TEXT = st.text(
    # YAML takes less than JSON does: no control characters, and line breaks of its own.
    st.characters(exclude_categories=["Cs", "Cc", "Cf", "Cn", "Co", "Zl", "Zp"]),
    max_size=20,
)
JSON_VALUES = st.recursive(
    JSON_SCALARS | JSON_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(JSON_TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(JSON_VALUES)
def test_every_json_document_reads_as_itself(value: Any) -> None:
    document = only(json.dumps({"key": value}, ensure_ascii=False))

    assert document.problems == []
    assert document.value == {"key": value}


@given(st.dictionaries(JSON_TEXT, JSON_VALUES, max_size=4))
def test_every_dumped_value_is_read_back(value: dict[str, Any]) -> None:
    text = yaml.safe_dump(value, default_flow_style=False, default_style='"', allow_unicode=True)

    document = only(text)

    assert document.problems == []
    assert document.value == value


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_but_never_fails(text: str) -> None:
    for document in read(text):
        assert document.readable or document.problems


def test_keys_that_stand_twice_are_refused_with_both_lines() -> None:
    document = only("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\na: 2\n")

    assert [(each.line, each.column, each.path) for each in document.problems] == [
        (5, 3, "b.c"),
        (6, 1, "a"),
    ]
    assert document.problems[0].message == (
        "The key `c` stands twice in this map: first in line 3."
    )


def test_a_syntax_error_has_its_line_and_a_remedy() -> None:
    [problem] = only("a:\n  b: 1\n\tc: 2\n").problems

    assert (problem.line, problem.column) == (3, 1)
    assert problem.message == "This is not YAML: found a tab character that violates indentation."
    assert problem.hint.startswith("indent with spaces, not tabs")


def test_documents_before_a_syntax_error_are_kept() -> None:
    first, second = read("a: 1\n---\nb: [\n")

    assert (first.value, first.problems) == ({"a": 1}, [])
    assert (second.readable, second.problems[0].line) == (False, 4)


def test_values_and_keys_have_their_places() -> None:
    document = only("a:\n  b: 1\n  c:\n    - x\n    - {d: 2}\nf.g: 3\n")

    def place(*parts: str | int) -> tuple[int, int]:
        mark = document.marks.find(parts)
        return mark.line, mark.column

    assert place("a") == (1, 1)
    assert place("a", "b") == (2, 6)
    assert place("a", "c", 0) == (4, 7)
    assert place("a", "c", 1, "d") == (5, 11)
    assert place("f.g") == (6, 6)
    assert place("a", "c", 7, "nowhere") == (3, 3)


def test_an_alias_repeats_its_anchor_and_a_merge_gives_way() -> None:
    document = only("one: &one {a: 1, b: 2}\ntwo:\n  <<: *one\n  b: 3\nthree: *one\n")

    assert document.value["two"] == {"b": 3, "a": 1}
    assert document.value["three"] == {"a": 1, "b": 2}
    assert document.problems == []


def test_a_merge_of_something_else_is_refused() -> None:
    [problem] = only("two:\n  <<: text\n").problems

    assert (problem.line, problem.message) == (2, "`<<` takes a map, or a list of maps.")


def test_aliases_cannot_make_a_small_file_large() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{name}: &{name} [{', '.join(['*' + before] * 10)}]"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    ]

    [problem] = only("\n".join(lines)).problems

    assert problem.message == "The document's aliases make it too large."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "The document is nested more than 100 levels deep."),
        ("- " * 100_000, "The document is nested more than 100 levels deep."),
        ("a: &a [*a]", "An alias contains itself."),
        ("a: !!set {b}", "The tag tag:yaml.org,2002:set has no meaning here."),
        ("a: !secret b", "The tag !secret has no meaning here."),
        ("? [a, b]\n: c", "A key must be text, not a list or a map."),
        ("a: \x01", "The character '\\x01' is not allowed in YAML."),
        ("a: *b", "This is not YAML: found undefined alias."),
        ("a: '\ud800'", "The file has half a surrogate pair, which is no character."),
    ],
)
def test_what_no_score_file_holds_is_refused(text: str, message: str) -> None:
    assert [problem.message for problem in only(text).problems] == [message]


def test_a_document_that_is_too_deep_is_refused_where_it_is() -> None:
    [problem] = only("a: 1\nb: " + "[" * 200 + "]" * 200).problems

    assert (problem.line, problem.column) == (2, 102)


def test_a_character_that_cannot_be_stored_is_refused_in_values_and_keys() -> None:
    problems = only('first: "a\\0b"\n"sec\\0ond": 1\n').problems

    assert [(problem.line, problem.column, problem.message) for problem in problems] == [
        (1, 8, r"The character \0 cannot be stored."),
        (2, 1, r"The character \0 cannot be stored."),
    ]


def test_a_key_that_is_not_text_is_refused_with_the_remedy() -> None:
    [problem] = only("variables:\n  8080: x\n").problems

    assert (problem.line, problem.column, problem.path) == (2, 3, "variables.8080")
    assert (problem.message, problem.hint) == (
        "The key 8080 is not text.",
        'write it in quotes: "8080"',
    )


def test_a_file_that_is_too_large_is_not_read() -> None:
    [problem] = only("a" * 16_000_001).problems

    assert problem.message == "The file has 16,000,001 characters; 16,000,000 are read at most."


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm() -> None:
    document = only("\ufeffa: 1\r\nb: 2\r\n")

    assert document.value == {"a": 1, "b": 2}
    assert document.marks.find(["b"]).line == 2
