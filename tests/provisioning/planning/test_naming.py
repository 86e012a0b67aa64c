from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.planning.naming import is_part, needed_key, resource_name

WORDS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,60}[a-z0-9])?", fullmatch=True)
RULES = st.fixed_dictionaries(
    {"length": st.integers(16, 100), "alphabet": st.sampled_from(["alphanumeric", "hyphens", "underscores"])},
    optional={"prefix": st.from_regex(r"[a-z][a-z0-9]{0,19}", fullmatch=True)},
)  # fmt: skip
KEY = "component/shop/cosmos.default#main"


def test_name_by_rule_has_all_its_parts():
    name = resource_name("acme", "prod", KEY, "cosmos", {"prefix": "az", "length": 44})
    assert re.fullmatch(r"az-cosmos-shop-prod-[0-9a-f]{8}", name)


def test_name_that_is_cut_keeps_its_hash():
    whole = resource_name("acme", "prod", KEY, "cosmos", {"prefix": "az"})
    cut = resource_name("acme", "prod", KEY, "cosmos", {"prefix": "az", "length": 16})
    assert cut == f"az-cosm-{whole[-8:]}"


@given(WORDS, WORDS, WORDS, RULES)
def test_name_obeys_its_rule(type_, application, environment, rule):
    key = f"app/{application}/{type_}.default#main"
    name = resource_name("acme", environment, key, type_, rule)
    letters = {"alphanumeric": "", "hyphens": "-", "underscores": "_"}[rule["alphabet"]]
    assert len(name) <= rule["length"]
    assert re.fullmatch(f"[a-z][a-z0-9{letters}]*", name)
    assert name == resource_name("acme", environment, key, type_, rule)


@given(WORDS, WORDS, RULES)
def test_names_of_two_resources_differ(one, other, rule):
    names = {resource_name("acme", "dev", f"shared/{each}", "cache", rule) for each in (one, other)}
    assert len(names) == len({one, other})


def test_keys_of_needs_follow_those_of_what_needs_them():
    def key(parent, id_="", *, same=False):
        return needed_key(parent, "role.read", "access", id_, same_id=same)

    own = "private/shop/web/db/s3.default"
    assert key(own) == "component/shop/role.read#access"
    assert key(own, "main") == "app/shop/role.read#main"
    assert key(own, same=True) == "private/shop/web/db/role.read"
    assert key("app/shop/s3.default#main", same=True) == "app/shop/role.read#main"
    assert key("shared/store") == "with/shared/store/role.read#access"
    assert key("shared/store", same=True) == "with/shared/store/role.read"
    assert key("with/shared/store/s3.default#data") == "with/shared/store/role.read#access"


@pytest.mark.parametrize(
    ("address", "part"),
    [
        ("shared/users", False),
        ("with/shared/users/database.default#store", True),
        ("in/acme/prod/with/slot/1/0/database.default#store", True),
        ("in/acme/prod/slot/1/0", False),
    ],
)
def test_what_a_resource_of_nobody_in_particular_needs_is_a_part(address: str, part: bool) -> None:
    assert is_part(address) is part
