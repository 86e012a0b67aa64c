from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.planning.conditions import ConditionError, read_condition

CONSUMER = {
    "team": "one",
    "application": "shop",
    "tags": {"cost-center": "42"},
    "params": {"size": 3},
    "metadata": {"annotations": {"example.com/zone": "red"}},
}
RESOURCE = {"team": "one", "application": "pay", "tags": {"cost-center": "42"}, "params": {}}


def holds(text: str) -> bool:
    return read_condition(text).holds(consumer=CONSUMER, resource=RESOURCE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("consumer.team == resource.team", True),
        ("consumer.application == resource.application", False),
        ('consumer.tags["cost-center"] == resource.tags["cost-center"]', True),
        ('consumer.metadata.annotations["example.com/zone"] in ["red", "green"]', True),
        ("consumer.params.size <= 3 and not resource.params.size", True),
        ("consumer.params.size > 3 or consumer.team == 'two'", False),
        ("1 < consumer.params.size < 4", True),
        ("consumer.team < 3", False),
        ("True", True),
    ],
)
def test_a_rule_compares_facts(text: str, expected: bool) -> None:
    assert holds(text) is expected


@pytest.mark.parametrize("operator", ["==", "!=", "<", "in", "not in"])
def test_a_comparison_with_a_fact_that_is_not_there_is_false(operator: str) -> None:
    assert not holds(f"consumer.tags.zone {operator} resource.tags.zone")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("open('/etc/passwd')", r"`open\('/etc/passwd'\)` is not allowed in a rule"),
        ("consumer.team.__class__.mro()", "is not allowed in a rule"),
        ("'a' * 1000000000 == 'a'", "is not allowed in a rule"),
        ("[each for each in consumer.tags]", "is not allowed in a rule"),
        ("lambda: 1", "is not allowed in a rule"),
        ("consumer.tags[resource.team] == 1", "does not name a fact"),
        ("consumer.password == 1", "There is no fact `consumer.password`. There are consumer.app"),
        ("team == 1", "There is no fact `team`"),
        ("consumer.team ==", "cannot be read"),
        ("", "cannot be read"),
        ("(" * 500 + "True", "cannot be read"),
        ("True or " * 300 + "True", "longer than 2,000 characters"),
    ],
)
def test_anything_else_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConditionError, match=message):
        read_condition(text)


@given(st.text(max_size=60), st.dictionaries(st.text(), st.integers()))
def test_a_rule_is_refused_or_answers(text: str, facts: dict[str, Any]) -> None:
    try:
        condition = read_condition(text)
    except ConditionError:
        return
    assert condition.holds(consumer=facts, resource=facts) in (True, False)
