from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.score.placeholders import (
    PlaceholderError,
    Reference,
    as_text,
    look_up,
    parse_reference,
    references,
    substitute,
)


def never(reference: Reference) -> Any:
    raise AssertionError(reference)


@given(st.text().filter(lambda text: "$" not in text))
def test_text_without_placeholders_stays_itself(text: str) -> None:
    assert substitute({"a": [text]}, never) == {"a": [text]}


@given(st.text())
def test_doubling_every_dollar_sign_escapes_any_text(text: str) -> None:
    escaped = text.replace("$", "$$")

    assert list(references(escaped)) == []
    assert substitute(escaped, never) == text


@given(st.text("ab${}.\\ _-", max_size=20))
def test_what_is_found_is_what_is_substituted(text: str) -> None:
    try:
        found = [reference for _, reference in references(text, aliases={"a", "b"})]
    except PlaceholderError:
        with pytest.raises(PlaceholderError):
            substitute(text, lambda _: "", aliases={"a", "b"})
        return
    asked: list[Reference] = []

    def lookup(reference: Reference) -> str:
        asked.append(reference)
        return ""

    substitute(text, lookup, aliases={"a", "b"})
    assert asked == found


def test_references_have_their_path_and_their_parts() -> None:
    value = {"a.b": ["x ${resources.db.host}:${resources.db.port}"], "n": 5}

    assert list(references(value)) == [
        (r"a\.b.0", Reference(("resources", "db", "host"), "resources.db.host")),
        (r"a\.b.0", Reference(("resources", "db", "port"), "resources.db.port")),
    ]


def test_the_short_form_names_a_known_alias() -> None:
    reference = parse_reference("db.host", aliases={"db"})

    assert (reference.alias, reference.keys, reference.text) == ("db", ("host",), "db.host")


def test_an_escaped_dot_belongs_to_the_name() -> None:
    reference = parse_reference(r"metadata.annotations.key\.com/foo-bar")

    assert reference.parts == ("metadata", "annotations", "key.com/foo-bar")


@pytest.mark.parametrize(
    "text", ["", "resources", "resources.", "a b.c", "resources..x", "resources.a!", "${", "db"]
)
def test_a_malformed_placeholder_is_refused(text: str) -> None:
    with pytest.raises(PlaceholderError, match="is malformed"):
        parse_reference(text, aliases={"db"})


def test_another_root_is_refused() -> None:
    with pytest.raises(PlaceholderError, match='has unsupported first element "cheese"'):
        parse_reference("cheese.host", aliases={"db"})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "x"),
        (5, "5"),
        (2.0, "2"),
        (2.5, "2.5"),
        (True, "true"),
        (None, "null"),
        ({"b": [1, "ü"], "a": "<&>"}, r'{"a":"\u003c\u0026\u003e","b":[1,"ü"]}'),
        (["\u2028\u2029"], r'["\u2028\u2029"]'),
    ],
)
def test_an_output_that_is_not_text_is_written_as_json(value: Any, text: str) -> None:
    assert as_text(value) == text
    assert substitute("= ${metadata.x}", lambda _: value) == f"= {text}"


def test_values_that_are_not_text_stay_themselves() -> None:
    assert substitute({"a": 5, "b": [True, None, 1.5]}, never) == {"a": 5, "b": [True, None, 1.5]}


def test_a_lookup_ends_where_there_is_no_key() -> None:
    reference = parse_reference("resources.db.auth.usr")

    with pytest.raises(PlaceholderError, match="there is no `usr`") as refused:
        look_up({"auth": {"user": 1, "word": 2}}, reference.keys, reference)

    assert refused.value.hint == "there is user, word"


def test_a_lookup_ends_at_what_is_not_a_map() -> None:
    reference = parse_reference("resources.db.host.name")

    with pytest.raises(PlaceholderError, match="`host` holds no `name`, it is not a map"):
        look_up({"host": "h"}, reference.keys, reference)
