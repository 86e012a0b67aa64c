from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from portal.management.plan_text import plan_lines
from provisioning.planning.decide import decide, decide_teardown
from provisioning.planning.facts import WorkloadFacts
from provisioning.planning.plan import Change, PlanError, Shrink, UnmetWish
from tests.provisioning.planning.facts import (
    actions,
    carried_out,
    make_snapshot,
    make_version,
    score,
    workloads,
)

KEY = "shared/common"
PARAMS = {
    "tier": {"type": "string"},
    "databases": {"type": "array", "items": {"type": "string"}, "maxItems": 5},
    "runtime": {"type": "string"},
    "size": {"type": "integer"},
}
RULES = {
    "tier": {"rule": "maximum", "order": ["Standard", "Premium"]},
    "databases": {"rule": "union"},
    "runtime": {"rule": "priority"},
}


def version(**more):
    return make_version("database", **{"params": PARAMS, "merge_rules": RULES, **more})


def wants(name, params, *more):
    lines = ["common:", "  type: database", "  reference: {mode: shared, name: common}", *more]
    return score(name, "\n".join([*lines, f"  params: {params}"]))


API = wants("api", "{tier: Premium, databases: [users, posts]}")
WEB = wants("web", "{tier: Standard, databases: [pages]}")


def both_deployed(**more):
    """Deploy `api` of shop, then `web` of mail, on one shared resource."""
    snapshot = make_snapshot(version(**more))
    snapshot = carried_out(decide(workloads(API), snapshot), snapshot)
    snapshot = replace(snapshot, application="mail", workloads={})
    return carried_out(decide(workloads(WEB), snapshot), snapshot)


def teardown_of_api(snapshot):
    snapshot = replace(snapshot, application="shop", workloads={"api": WorkloadFacts("api")})
    return decide_teardown(["api"], snapshot)


def only(plan):
    (resource,) = plan.resources
    return resource


def test_joiner_with_more_wishes_updates_what_others_use():
    snapshot = make_snapshot(version())
    snapshot = carried_out(decide(workloads(WEB), snapshot), snapshot)

    plan = decide(workloads(API), replace(snapshot, application="mail"))

    resource = only(plan)
    assert actions(plan) == {KEY: "update"}
    assert resource.changes == (
        Change("databases", ["pages"], ["pages", "posts", "users"]),
        Change("tier", "Standard", "Premium"),
    )
    assert resource.decided_by == {
        "databases": ("mail/api.common", "shop/web.common"),
        "tier": ("mail/api.common",),
    }
    assert plan.blast_radius() == {"": {"shop/web": [resource.uid]}}


def test_plan_text_says_who_decided():
    snapshot = make_snapshot(version())
    snapshot = carried_out(decide(workloads(WEB), snapshot), snapshot)
    plan = decide(workloads(API), replace(snapshot, application="mail"))

    lines = [line.strip() for line in plan_lines(plan.to_json())]

    assert "databases decided by mail/api.common, shop/web.common" in lines
    assert "tier decided by mail/api.common" in lines


def test_joiner_within_what_there_is_changes_nothing():
    snapshot = make_snapshot(version())
    snapshot = carried_out(decide(workloads(API), snapshot), snapshot)

    plan = decide(
        workloads(wants("web", "{tier: Standard, databases: [users]}")),
        replace(snapshot, application="mail"),
    )

    assert actions(plan) == {KEY: "reuse"}
    assert plan.steps == ()


def test_leaving_takes_the_wish_away_and_the_plan_says_what_shrinks():
    plan = teardown_of_api(both_deployed())

    assert actions(plan) == {KEY: "update"}
    assert only(plan).params == {"databases": ["pages"], "tier": "Standard"}
    assert only(plan).shrinks == (
        Shrink("databases", ["pages", "posts", "users"], ["pages"], "applied"),
        Shrink("tier", "Premium", "Standard", "applied"),
    )
    assert [step.action for step in plan.steps] == ["ensure"]
    assert plan.blast_radius() == {"": {"mail/web": [only(plan).uid]}}


def test_dropping_the_alias_takes_the_wish_away_too():
    snapshot = replace(both_deployed(), application="shop")

    plan = decide(workloads(score("api")), snapshot)

    assert actions(plan) == {KEY: "update"}
    assert only(plan).params == {"databases": ["pages"], "tier": "Standard"}


def test_lowering_a_wish_shrinks():
    snapshot = replace(both_deployed(), application="shop")

    plan = decide(workloads(wants("api", "{tier: Standard, databases: [users]}")), snapshot)

    assert only(plan).params == {"databases": ["pages", "users"], "tier": "Standard"}
    assert [shrink.verdict for shrink in only(plan).shrinks] == ["applied", "applied"]


@pytest.mark.parametrize("policy", ["propose", "never"])
def test_what_does_not_shrink_is_released_and_shown(policy):
    plan = teardown_of_api(both_deployed(shrink=policy))

    assert actions(plan) == {KEY: "release"}
    assert plan.steps == ()
    assert only(plan).params == {"databases": ["pages", "posts", "users"], "tier": "Premium"}
    assert only(plan).shrinks == (
        Shrink("databases", ["pages", "posts", "users"], ["pages"], policy),
        Shrink("tier", "Premium", "Standard", policy),
    )


@pytest.mark.parametrize(
    ("policy", "action", "tier"),
    [("propose", "update", "Standard"), ("never", "unchanged", "Premium")],
)
def test_deploying_with_shrink_carries_out_what_is_proposed(policy, action, tier):
    snapshot = both_deployed(shrink=policy)
    snapshot = carried_out(teardown_of_api(snapshot), replace(snapshot, application="shop"))
    snapshot = replace(snapshot, application="mail")

    stays = decide(workloads(WEB), snapshot)
    shrinks = decide(workloads(WEB), snapshot, shrink=True)

    assert actions(stays) == {KEY: "unchanged"}
    assert actions(shrinks) == {KEY: action}
    assert only(shrinks).params["tier"] == tier


def test_what_was_never_brought_about_is_no_floor():
    snapshot = both_deployed(shrink="never")
    resources = {KEY: replace(snapshot.resources[KEY], floor={"tier": "Standard"})}

    plan = teardown_of_api(replace(snapshot, resources=resources))

    assert only(plan).params == {"databases": ["pages"], "tier": "Standard"}


def test_leaving_without_rules_changes_nothing():
    snapshot = make_snapshot(version(merge_rules={}))
    snapshot = carried_out(decide(workloads(API), snapshot), snapshot)
    snapshot = replace(snapshot, application="mail", workloads={})
    same = API.replace("name: api", "name: web")
    snapshot = carried_out(decide(workloads(same), snapshot), snapshot)

    assert actions(teardown_of_api(snapshot)) == {KEY: "release"}


def test_conflict_that_a_leaving_consumer_leaves_behind_changes_nothing_yet():
    snapshot = make_snapshot(version())
    for application, priority, runtime in (("shop", 9, "20"), ("mail", 1, "18"), ("wiki", 0, "16")):
        text = wants("api", f"{{runtime: '{runtime}'}}", f"  priority: {priority}")
        snapshot = replace(snapshot, application=application)
        snapshot = carried_out(decide(workloads(text), snapshot), snapshot)
    lowered = wants("api", "{runtime: '18'}", "  priority: 0")
    snapshot = replace(snapshot, application="mail")
    snapshot = carried_out(decide(workloads(lowered), snapshot), snapshot)

    plan = teardown_of_api(snapshot)

    assert actions(plan) == {KEY: "release"}
    assert only(plan).params == {"runtime": "20"}


def test_loser_by_priority_is_told_in_the_plan():
    snapshot = make_snapshot(version())
    first = wants("api", "{runtime: '20'}", "  priority: 5")
    snapshot = carried_out(decide(workloads(first), snapshot), snapshot)

    plan = decide(workloads(wants("web", "{runtime: '18'}")), replace(snapshot, application="mail"))

    assert only(plan).unmet == (UnmetWish("mail/web.common", "runtime", "18", "20"),)
    assert 'not as mail/web.common asks: runtime is "20", not "18"' in [
        line.strip() for line in plan_lines(plan.to_json())
    ]


def test_merged_params_have_to_suit_the_schema():
    snapshot = make_snapshot(version())
    snapshot = carried_out(decide(workloads(API), snapshot), snapshot)
    text = wants("web", "{databases: [a, b, c, d]}")

    with pytest.raises(PlanError) as caught:
        decide(workloads(text), replace(snapshot, application="mail"))

    (problem,) = caught.value.problems
    assert problem.message == (
        'With what the other consumers ask for: ["a", "b", "c", "d", "posts", "users"] is not '
        "accepted by the template database 1.0.0: the maxItems is 5."
    )
    assert problem.line == 11


def test_required_param_may_come_from_another_consumer():
    with_required = version(required=["size"])
    snapshot = make_snapshot(with_required)
    first = wants("api", "{size: 3}")
    second = wants("web", "{tier: Premium}")

    plan = decide(workloads(first, second), snapshot)

    assert only(plan).params == {"size": 3, "tier": "Premium"}
    with pytest.raises(PlanError, match="The parameter `size` is missing"):
        decide(workloads(second), snapshot)


def test_aliases_are_bound_before_wishes_are_compared():
    taker = make_version(
        "taker",
        version_id=3,
        params={"host": {"type": "string"}},
        merge_rules={"host": {"rule": "equal"}},
    )
    snapshot = make_snapshot(version(), taker)

    def file(name, alias):
        return score(
            name,
            f"{alias}:\n  type: database\n  id: one\n"
            "common:\n  type: taker\n  reference: {mode: shared, name: common}\n"
            f"  params: {{host: '${{resources.{alias}.host}}'}}",
        )

    plan = decide(workloads(file("api", "db"), file("web", "store")), snapshot)

    assert actions(plan) == {"app/shop/database.default#one": "create", KEY: "create"}


def test_plan_is_the_same_byte_for_byte_in_a_thousand_orders():
    snapshot = make_snapshot(version())
    for number, application in enumerate(["mail", "wiki", "blog"]):
        text = wants("web", f"{{tier: Standard, databases: [d{number}]}}")
        snapshot = replace(snapshot, application=application)
        snapshot = carried_out(decide(workloads(text), snapshot), snapshot)
    snapshot = replace(snapshot, application="shop", workloads={})
    texts = [API, wants("job", "{runtime: '18'}"), wants("web", "{databases: [users]}")]
    shuffle = random.Random(8)

    plans = set()
    for _ in range(1_000):
        shuffle.shuffle(texts)
        consumers = shuffle.sample(snapshot.consumers, len(snapshot.consumers))
        rules = dict(shuffle.sample(list(RULES.items()), len(RULES)))
        resource = replace(snapshot.resources[KEY], version=replace(version(), merge_rules=rules))
        shuffled = replace(snapshot, consumers=consumers, resources={KEY: resource})
        plan = decide(workloads(*texts), shuffled)
        plans.add((plan.digest, json.dumps(plan.to_json())))

    assert len(plans) == 1
