from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.planning.checks import ANY_FACT, Check, facts_of
from provisioning.planning.conditions import UNKNOWN, read_condition
from provisioning.planning.decide import decide
from tests.provisioning.planning.facts import (
    carried_out,
    make_snapshot,
    make_version,
    score,
    workloads,
)

VERSION = make_version(
    "database",
    params={"size": {"type": "integer", "default": 3}, "from": {"type": "string"}},
    outputs={"host": False, "password": True, "room": False},
)


def check(condition: str) -> Check:
    return Check.of({"condition": condition, "message": "It is too small."})


def facts(wish: dict[str, Any] | None, outputs: dict[str, Any], **more: Any):
    return facts_of(VERSION, wish=wish, params=wish or {}, outputs=outputs, **more)


@pytest.mark.parametrize(
    ("condition", "wish", "outputs", "verdict"),
    [
        ("outputs.room >= wish.size", {"size": 2}, {"room": 3}, True),
        ("outputs.room >= wish.size", {"size": 4}, {"room": 3}, False),
        ("outputs.room >= wish.size", {}, {"room": 3}, True),
        ("outputs.room >= wish.size", None, {}, True),
        ("outputs.room >= wish.size", {"size": 4}, {}, False),
        ("outputs.room >= wish.size", {"size": 4}, {"room": UNKNOWN}, None),
        ("outputs.room >= params.size", None, {"room": 2}, False),
        ("outputs.room in (2, 4)", None, {"room": 2}, True),
        ("params.size == 3 or outputs.room", None, {"room": UNKNOWN}, True),
        ("params.size == 4 and outputs.room", None, {"room": UNKNOWN}, False),
        ("not outputs.room", None, {"room": UNKNOWN}, None),
        ("outputs.room in [wish.size, 1]", {"size": 1}, {"room": UNKNOWN}, None),
    ],
)
def test_a_check_concerns_who_asks_for_what_it_names(
    condition: str, wish: dict[str, Any] | None, outputs: dict[str, Any], verdict: bool | None
) -> None:
    assert facts(wish, outputs).verdict(check(condition)) is verdict


def test_references_are_filled_and_what_gives_nothing_is_unknown() -> None:
    wish = {"from": r"${resources.app/shop/x\.y#a.host}"}
    same = check('outputs.host == wish["from"]')

    filled = facts(wish, {"host": "h"}, needed={"app/shop/x.y#a": {"host": "h"}})

    assert filled.verdict(same) is True
    assert facts(wish, {"host": "h"}).verdict(same) is None


def test_the_sentence_shows_what_is_no_secret() -> None:
    said = facts(
        {"size": 4, "from": "x" * 99},
        {"password": "s3cret", "room": 3},
        secret=frozenset({("outputs", "password")}),
    ).sentence(
        check('outputs.room >= wish.size and outputs.password == wish["from"] and outputs.gone')
    )

    assert said == (
        "It is too small (outputs.room is 3, wish.size is 4, outputs.password is a secret, "
        f'wish.from is "{"x" * 78}…, outputs.gone is not set).'
    )


NAMES = st.sampled_from(["wish.a", "wish.b", "params.a", "outputs.a", "outputs.b"])
COMPARED = st.one_of(NAMES, st.integers(0, 2).map(str))
CONDITIONS = st.recursive(
    st.tuples(COMPARED, st.sampled_from(["==", "<", "!=", "in"]), COMPARED).map(" ".join),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda parts: f"({' '.join(parts)})"),
        inner.map(lambda each: f"not ({each})"),
    ),
    max_leaves=6,
)  # fmt: skip
VALUES = st.dictionaries(st.sampled_from("ab"), st.integers(0, 2))


@given(
    CONDITIONS,
    VALUES,
    VALUES,
    VALUES,
    st.sets(st.tuples(st.sampled_from("wpo"), st.sampled_from("ab"))),
)
def test_what_is_told_before_all_is_known_stays_true(condition, wish, params, outputs, hidden):
    known = {"wish": wish, "params": params, "outputs": outputs}
    early = {
        root: {
            name: UNKNOWN if (root[0], name) in hidden else value for name, value in each.items()
        }
        for root, each in known.items()
    }
    read = read_condition(condition, ANY_FACT)

    assert read.verdict(early) in (None, read.verdict(known))
    assert read.verdict(known) is not None


STORE = "db:\n  type: database\n  reference: {mode: shared, name: x}\n  params: {size: 1}\n"


@pytest.mark.parametrize(
    ("condition", "steps"),
    [("outputs.password == wish.size", 1), ("outputs.host == wish.size", 0)],
)
def test_only_what_secrets_tell_gets_a_joiner_a_step(condition: str, steps: int) -> None:
    checks = [{"condition": condition, "message": "It is not right."}]
    snapshot = make_snapshot(make_version("database", checks=checks))
    files = workloads(score("web", STORE))
    snapshot = carried_out(decide(files, snapshot), snapshot)

    joined = decide([*files, *workloads(score("mail", STORE))], snapshot)

    assert len(joined.steps) == steps
    assert joined.touched == frozenset()
    assert decide(files, snapshot).steps == ()
