from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.planning.merging import (
    Claims,
    MergeConflictError,
    Wish,
    claims_of,
    combine,
    rules_of,
    settle,
    unmet,
)

ORDER = {"rule": "maximum", "order": ["Standard", "Premium"]}
RULES = {
    "tier": ORDER,
    "databases": {"rule": "union", "key": "name", "limit": 4},
    "env": "union",
    "replicas": {"rule": "maximum", "limit": 9},
    "retention": "minimum",
    "network": "intersection",
    "runtime": "priority",
}


def wish(workload, priority=None, **params):
    return Wish("shop", workload, "db", params or None, priority)


def settled(*wishes, rules=RULES, floor=None):
    return settle(combine(map(claims_of, wishes)), rules_of(rules), floor)


def params(*wishes, **more):
    return dict(settled(*wishes, **more).params)


def conflict(*wishes, **more):
    with pytest.raises(MergeConflictError) as caught:
        settled(*wishes, **more)
    (only,) = caught.value.conflicts
    return only


def deciders(result):
    return {
        param: [str(who) for who in consumers] for param, consumers in result.decided_by.items()
    }


scalars = st.integers(0, 3) | st.booleans() | st.sampled_from(["a", "Standard", "Premium"])
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("pq"), inner, max_size=2)
    ),
    max_leaves=5,
)
wishes = st.builds(
    Wish,
    st.sampled_from(["shop", "mail"]),
    st.sampled_from(["api", "web"]),
    st.sampled_from(["aa", "bb"]),
    st.none() | st.dictionaries(st.sampled_from([*RULES, "size"]), values, max_size=4),
    st.none() | st.integers(0, 2),
)
claims = st.lists(wishes, max_size=4).map(lambda drawn: combine(map(claims_of, drawn)))


def outcome(claimed, rules):
    """Return what is settled, or None if there are conflicts."""
    try:
        return settle(claimed, rules_of(rules))
    except MergeConflictError:
        return None


def told(claimed, rules):
    """Write everything that settling tells, in its own order."""
    try:
        result = settle(claimed, rules_of(rules))
    except MergeConflictError as error:
        return str(error)
    return json.dumps([result.params, deciders(result)])


@given(claims, claims)
def test_combining_is_commutative(one, other):
    assert one | other == other | one


@given(claims, claims, claims)
def test_combining_is_associative(one, two, three):
    assert (one | two) | three == one | (two | three)


@given(claims)
def test_combining_is_idempotent(claimed):
    assert claimed | claimed == claimed == claimed | Claims()


@given(
    st.lists(wishes, max_size=6), st.randoms(use_true_random=False), st.sampled_from([RULES, {}])
)
def test_settling_does_not_depend_on_the_order_or_on_repetition(drawn, random, rules):
    shuffled = random.sample(drawn, len(drawn)) + drawn[:2]

    one = told(combine(map(claims_of, drawn)), rules)
    other = told(combine(map(claims_of, shuffled)), rules)

    assert one == other


@given(st.lists(wishes, max_size=6), st.sampled_from([RULES, {}]))
def test_what_is_settled_meets_all_but_priorities_and_intersections(drawn, rules):
    claimed = combine(map(claims_of, drawn))
    result = outcome(claimed, rules)

    if result is not None:
        left = {each.param for each in unmet(claimed, rules_of(rules), result.params)}
        assert left <= {"runtime", "network"}


@given(st.lists(wishes, max_size=5))
def test_settling_the_settled_changes_nothing(drawn):
    result = outcome(combine(map(claims_of, drawn)), RULES)

    if result is not None:
        again = Wish("shop", "api", "aa", result.params)
        assert settle(claims_of(again), rules_of(RULES)).params == result.params


def test_without_rules_everybody_asks_for_the_same():
    assert params(wish("api", size=3), wish("web", size=3), wish("job"), rules={}) == {"size": 3}
    assert str(conflict(wish("api", size=1), wish("web", size=True), rules={})) == (
        "the parameter `size` is 1 for workload api of application shop and true for workload web "
        "of application shop; the rule is equal"
    )


def test_without_rules_leaving_out_a_param_is_a_wish_for_its_default():
    assert str(conflict(wish("api", size=1, x=1), wish("web", size=1), rules={})) == (
        "the parameter `x` is 1 for workload api of application shop and not set for workload web "
        "of application shop; the rule is equal"
    )


def test_with_rules_leaving_out_a_param_leaves_it_to_the_others():
    result = settled(wish("api", tier="Premium"), wish("web", size=1))

    assert result.params == {"size": 1, "tier": "Premium"}
    assert deciders(result) == {"size": ["shop/web.db"], "tier": ["shop/api.db"]}


def test_maximum_takes_the_last_in_the_order_and_says_whose_it_is():
    result = settled(
        wish("api", tier="Standard"), wish("web", tier="Premium"), wish("job", tier="Premium")
    )

    assert result.params == {"tier": "Premium"}
    assert deciders(result) == {"tier": ["shop/job.db", "shop/web.db"]}


def test_numbers_are_compared_as_numbers():
    many = (wish("api", replicas=9, retention=30), wish("web", replicas=2.5, retention=7))

    assert params(*many) == {"replicas": 9, "retention": 7}


def test_value_that_is_not_in_the_order_conflicts_and_the_hint_lists_the_order():
    found = conflict(wish("api", tier="Gold"), wish("web", tier="Premium"))

    assert str(found) == (
        'the parameter `tier` is "Gold" for workload api of application shop and "Premium" for '
        'workload web of application shop; the rule is maximum of "Standard" < "Premium", "Gold" '
        "is not in its order, so it can be compared with nothing"
    )
    assert found.hint == (
        'ask for one of "Standard", "Premium", or use another name for a resource of your own'
    )


def test_reference_has_no_place_in_a_comparison_of_numbers():
    reference = r"${resources.app/shop/queue.host}"

    assert params(wish("api", replicas=reference), wish("web", replicas=reference)) == {
        "replicas": reference
    }
    assert (
        "is not a number" in conflict(wish("api", replicas=reference), wish("web", replicas=1)).why
    )


def test_number_above_the_limit_is_refused():
    assert str(conflict(wish("api", replicas=10))) == (
        "the parameter `replicas` is 10 for workload api of application shop; the rule is maximum, "
        "it may be 9 at most, and is 10"
    )


def test_union_of_objects_goes_by_their_key_and_recurses():
    users = {"name": "users", "containers": [{"name": "user", "partitionKey": "/id"}]}
    more = {"name": "users", "containers": [{"name": "team", "partitionKey": "/id"}]}
    posts = {"name": "posts", "containers": []}

    result = settled(wish("api", databases=[users]), wish("web", databases=[posts, more]))

    assert result.params["databases"] == [
        posts,
        {
            "name": "users",
            "containers": [
                {"name": "team", "partitionKey": "/id"},
                {"name": "user", "partitionKey": "/id"},
            ],
        },
    ]
    assert deciders(result) == {"databases": ["shop/api.db", "shop/web.db"]}


def test_union_names_the_place_inside_on_which_two_differ():
    def users(partition_key):
        containers = [{"name": "user", "partitionKey": partition_key}]
        return [{"name": "users", "containers": containers}]

    found = conflict(wish("api", databases=users("/id")), wish("web", databases=users("/pk")))

    assert found.param == "databases[users].containers[user].partitionKey"
    assert [claim.value for claim in found.claims] == ["/id", "/pk"]


def test_fields_of_a_union_have_rules_of_their_own():
    rules = {"databases": {"rule": "union", "key": "name", "fields": {"throughput": "maximum"}}}
    many = [wish(name, databases=[{"name": "a", "throughput": n}]) for n, name in enumerate("xyz")]

    assert params(*many, rules=rules) == {"databases": [{"name": "a", "throughput": 2}]}


def test_union_of_maps_keeps_references_as_text():
    reference = "${resources.app/shop/cosmos.endpoint}"
    many = (wish("api", env={"URL": reference}), wish("web", env={"LEVEL": "info"}))

    assert params(*many) == {"env": {"LEVEL": "info", "URL": reference}}
    assert conflict(*many, wish("job", env={"LEVEL": "debug"})).param == "env.LEVEL"


def test_union_beyond_its_limit_names_those_who_ask_for_most():
    found = conflict(
        wish("api", databases=["a", "b", "c"]), wish("web", databases=["d", "e"]), wish("job", x=1)
    )

    assert [str(claim.first) for claim in found.claims] == ["shop/api.db", "shop/web.db"]
    assert found.why == "it may have 4 items at most, and together they are 5"
    assert found.hint == "ask for less, or use another name for a resource of your own"


def test_intersection_keeps_what_all_have():
    assert params(wish("api", network=["b", "a", "c"]), wish("web", network=["c", "b"])) == {
        "network": ["b", "c"]
    }
    assert (
        "nothing in common" in conflict(wish("api", network=["a"]), wish("web", network=["b"])).why
    )


def test_highest_priority_wins_and_the_loser_is_named():
    many = (wish("api", 5, runtime="20"), wish("web", runtime="18"))
    result = settled(*many)

    (loser,) = unmet(combine(map(claims_of, many)), rules_of(RULES), result.params)

    assert result.params == {"runtime": "20"}
    assert (str(loser.consumer), loser.asked, loser.given) == ("shop/web.db", "18", "20")


def test_equal_priorities_with_different_values_conflict():
    found = conflict(
        wish("api", 5, runtime="20"), wish("web", 5, runtime="18"), wish("job", 1, runtime="16")
    )

    assert found.why == "both have the priority 5"
    assert [claim.value for claim in found.claims] == ["20", "18"]
    assert "higher `priority`" in found.hint


def test_every_conflict_is_told():
    with pytest.raises(MergeConflictError) as caught:
        settled(wish("api", size=1, runtime="1"), wish("web", size=2, runtime="2"))

    assert [each.param for each in caught.value.conflicts] == ["runtime", "size"]


def test_floor_keeps_what_only_grows():
    floor = {"tier": "Premium", "databases": ["a"], "replicas": 7, "runtime": "18", "size": 4}
    result = settled(wish("api", tier="Standard", databases=["b"], runtime="20"), floor=floor)

    assert result.params == {
        "tier": "Premium",
        "databases": ["a", "b"],
        "replicas": 7,
        "runtime": "20",
    }
    assert deciders(result)["tier"] == ["what there is"]


def test_floor_gives_way_where_it_conflicts():
    floor = {"env": {"LEVEL": "info", "OLD": "1"}}

    assert params(wish("api", env={"LEVEL": "debug"}), floor=floor) == {
        "env": {"LEVEL": "debug", "OLD": "1"}
    }


def test_true_is_not_one():
    assert conflict(wish("api", size=1), wish("web", size=True)).param == "size"
