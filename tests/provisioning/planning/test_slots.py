from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.planning.decide import decide
from provisioning.planning.facts import (
    ConsumerFacts,
    ResourceFacts,
    SlotFacts,
    Snapshot,
    VersionFacts,
    WorkloadFacts,
)
from provisioning.planning.plan import Plan, PlanError
from provisioning.planning.slots import MOST_LISTED
from tests.provisioning.planning.facts import (
    actions,
    carried_out,
    make_snapshot,
    make_version,
    score,
    workloads,
)

ANY = {"size": {"type": "integer"}, "tier": {"type": "string"}, "from": {"type": "string"}}
DATABASE = make_version("database", params=ANY)


def asking(sharing: str, params: str = "{size: 3}", alias: str = "db") -> str:
    return f"{alias}:\n  type: database\n  params: {params}\n  {sharing}\n"


def matching(text: str) -> str:
    return f"matching: {{{text}}}"


def snapshot_of(application: str, snapshot: Snapshot, team: str = "one") -> Snapshot:
    """Look at the environment of a snapshot as another application."""
    own = {each.workload for each in snapshot.consumers if each.application == application}
    return replace(
        snapshot,
        application=application,
        team=team,
        workloads={name: WorkloadFacts(name) for name in sorted(own)},
    )


def empty(version: VersionFacts = DATABASE) -> Snapshot:
    return make_snapshot(version)


def deploy(
    snapshot: Snapshot, application: str, resources: str, *, team: str = "one"
) -> tuple[Plan, Snapshot]:
    """Plan one workload `api` of an application, and carry the plan out."""
    before = snapshot_of(application, snapshot, team)
    plan = decide(workloads(score("api", resources)), before)
    return plan, carried_out(plan, before)


def bound(plan: Plan) -> dict[str, str]:
    return {each.alias: each.key for each in plan.bindings}


def live(
    name: str, *, size: int = 3, team: str = "one", created_at: str = "", **slot: int | None
) -> ResourceFacts:
    """Make a live resource that others may find."""
    return ResourceFacts(
        id=f"id-of-{name}",
        key=f"slot/{name}/0",
        name=name,
        uid=f"database.default#{name}",
        type="database",
        class_="default",
        version=DATABASE,
        params={"size": size},
        context={},
        spec_digest=name,
        owner_team=team,
        created_by="other",
        clean=True,
        slot=SlotFacts(name, 0, **slot),
        created_at=created_at or name,
    )


def among(*resources: ResourceFacts, users: Sequence[str] = ()) -> Snapshot:
    """Make an environment of live resources that other applications use, all open to the asker."""
    consumers = [
        ConsumerFacts(f"other-{number}", "api", "db", key, "match", {"size": 3})
        for number, key in enumerate(users)
    ]
    return replace(empty(), resources={each.key: each for each in resources}, consumers=consumers)


@pytest.mark.parametrize(
    "sharing", ["sharing: shared", "sharing: shared-by-params", matching("sharingPolicy: shared")]
)
def test_equal_params_share_one_resource_and_others_do_not(sharing: str) -> None:
    first, after = deploy(empty(), "shop", asking(sharing))
    same, after = deploy(after, "pay", asking(sharing))
    other, _ = deploy(after, "ship", asking(sharing, "{size: 4}"))

    assert bound(same) == bound(first)
    assert list(actions(first).values()) == ["create"]
    assert list(actions(same).values()) == ["reuse"]
    assert list(actions(other).values()) == ["create"]
    assert bound(other) != bound(first)


def test_shared_always_takes_what_there_is() -> None:
    first, after = deploy(empty(), "shop", asking("sharing: shared", "{size: 4}"))
    second, _ = deploy(after, "pay", "db:\n  type: database\n  sharing: shared-always\n")

    assert bound(second) == bound(first)


def test_dedicated_and_shared_by_name_are_not_matched() -> None:
    own, after = deploy(empty(), "shop", asking("sharing: dedicated"))
    named, after = deploy(after, "shop", asking("sharing: shared-by-name"))
    dedicated, _ = deploy(after, "shop", asking(matching("sharingPolicy: dedicated")))

    assert bound(own) == bound(dedicated) == {"db": "private/shop/api/db/database.default"}
    assert bound(named) == {"db": "shared/db"}


def test_only_the_params_of_match_on_must_be_equal() -> None:
    tier = matching("matchOn: [tier]")
    first, after = deploy(empty(), "shop", asking(tier, "{tier: basic, size: 3}"))
    same, after = deploy(after, "pay", asking(tier, "{tier: basic, size: 3}"))
    other, _ = deploy(after, "ship", asking(tier, "{tier: premium, size: 3}"))

    assert bound(same) == bound(first) != bound(other)
    assert other.bindings[0].considered[0].reason == (
        'its `tier` is "basic", and "premium" is wanted'
    )


def test_a_full_resource_is_followed_by_the_next_of_its_slot() -> None:
    two = asking(matching("maxConsumers: 2"))
    state, keys = empty(), []
    for number in range(5):
        plan, state = deploy(state, f"app-{number}", two)
        keys.append(bound(plan)["db"])

    slot = keys[0].rpartition("/")[0]
    assert keys == [f"{slot}/{ordinal}" for ordinal in (0, 0, 1, 1, 2)]
    assert [each.reason for each in plan.bindings[0].considered] == [
        "it is full: it has 2 of 2 consumers"
    ] * 2


def test_a_stricter_consumer_lowers_how_many_may_come() -> None:
    first, after = deploy(empty(), "shop", asking("sharing: shared"))
    second, after = deploy(after, "pay", asking(matching("maxConsumers: 2")))
    third, _ = deploy(after, "ship", asking("sharing: shared"))

    assert bound(second) == bound(first) != bound(third)
    assert second.resources[0].slot is not None
    assert second.resources[0].slot.max_consumers == 2


def test_aliases_of_one_plan_share_what_it_makes_as_far_as_it_goes() -> None:
    three = "".join(
        asking(matching("maxConsumers: 2"), alias=alias) for alias in ("one", "two", "zoo")
    )
    plan, _ = deploy(empty(), "shop", three)

    keys = bound(plan)
    assert keys["one"] == keys["two"] != keys["zoo"]
    assert list(actions(plan).values()) == ["create", "create"]


def test_a_binding_stays_until_its_declaration_changes() -> None:
    _, after = deploy(empty(), "shop", asking("sharing: shared"))
    key = next(iter(after.resources))
    drifted = replace(after.resources[key], params={"size": 9}, owner_team="two")
    older = live("older", created_at="", size=3)
    after = replace(after, resources={older.key: older, key: drifted})
    same = decide(workloads(score("api", asking("sharing: shared"))), after)
    changed = decide(workloads(score("api", asking(matching("matchOn: [size]")))), after)

    assert bound(same) == {"db": key}
    assert [each.reason for each in same.bindings[0].considered] == [
        "bound to it already, and asks for the same as before"
    ]
    assert bound(changed) == {"db": "slot/older/0"}


def test_a_changed_declaration_keeps_its_resource_where_it_still_fits() -> None:
    _, after = deploy(empty(), "shop", asking(matching("matchOn: [tier]"), "{size: 3}"))
    key = next(iter(after.resources))
    better = live("better", created_at="0")
    after = replace(after, resources={better.key: better, **after.resources})
    plan = decide(workloads(score("api", asking(matching("matchOn: [tier]"), "{size: 4}"))), after)

    assert bound(plan) == {"db": key}
    assert actions(plan)[key] == "update"


def test_what_is_being_destroyed_is_not_joined() -> None:
    _, after = deploy(empty(), "shop", asking("sharing: shared"))
    key = next(iter(after.resources))
    gone = replace(after.resources[key], deleting=True)
    plan, _ = deploy(replace(after, resources={key: gone}), "pay", asking("sharing: shared"))

    assert bound(plan) == {"db": key.replace("/0", "/1")}
    assert plan.bindings[0].considered[0].reason == "it is being destroyed"


def test_the_order_of_rank_is_own_team_then_age_then_key() -> None:
    ranked = [
        live("c", created_at="2"),
        live("a", created_at="3"),
        live("b", created_at="3"),
        live("d", created_at="1", team="two"),
    ]
    mixed = random.Random(1).sample(ranked, len(ranked))
    plan = decide(workloads(score("api", asking("sharing: shared"))), among(*mixed))

    assert [each.name for each in plan.bindings[0].considered] == ["c", "a", "b", "d"]
    assert [each.chosen for each in plan.bindings[0].considered] == [True, False, False, False]
    assert plan.bindings[0].considered[1].reason == "it fits, but another is ranked before it"


def test_the_best_twenty_are_told_one_by_one_and_the_rest_counted() -> None:
    full = [live(f"full-{number:02}", max_consumers=1) for number in range(30)]
    fits = [live(f"z-{number}") for number in range(3)]
    wrong = [live(f"wrong-{number:02}", size=9) for number in range(5)]
    snapshot = among(*full, *fits, *wrong, users=[each.key for each in full])
    (binding,) = decide(workloads(score("api", asking("sharing: shared"))), snapshot).bindings

    assert len(binding.considered) == MOST_LISTED == 20
    assert [each.name for each in binding.considered if each.chosen] == ["z-0"]
    assert binding.left_out == {
        "another `size`": 5,
        "full": 11,
        "it fits, but another is ranked before it": 2,
    }
    assert binding.key == "slot/z-0/0"


def test_the_explanation_does_not_enter_the_digest() -> None:
    ask = workloads(score("api", asking("sharing: shared")))
    one = decide(ask, among(live("a")))
    two = decide(ask, among(live("a"), live("b", size=9)))

    assert one.bindings[0].considered != two.bindings[0].considered
    assert one.digest == two.digest


@pytest.mark.parametrize(
    ("rule", "team", "joins"),
    [
        ("consumer.team == resource.team", "one", True),
        ("consumer.team == resource.team", "two", False),
        ("resource.params.size > consumer.params.size", "one", False),
        ("resource.application == 'shop'", "two", True),
        ("", "one", False),
    ],
)
def test_conditional_shares_where_the_rule_of_the_template_holds(
    rule: str, team: str, joins: bool
) -> None:
    version = make_version("database", params=ANY, share_when=rule)
    conditional = asking(matching("sharingPolicy: conditional"))
    first, after = deploy(empty(version), "shop", conditional)
    second, _ = deploy(after, "pay", conditional, team=team)
    unconditional, _ = deploy(after, "pay", asking("sharing: shared"), team=team)

    assert (bound(second) == bound(first)) is joins
    assert (bound(unconditional) == bound(first)) is joins
    if not joins:
        (considered,) = second.bindings[0].considered
        assert considered.reason == (
            f"the rule of its template database does not hold: {rule}"
            if rule
            else "its template database has no `share_when` to share it by"
        )


def test_matched_values_may_refer_to_what_is_matched_itself() -> None:
    both = asking("sharing: shared", alias="base") + asking(
        "sharing: shared", "{from: '${resources.base.host}'}", alias="above"
    )
    first, after = deploy(empty(), "shop", both)
    second, _ = deploy(after, "pay", both)

    assert bound(first) == bound(second)
    assert len(set(bound(first).values())) == 2
    assert set(actions(second).values()) == {"reuse"}


def test_criteria_that_refer_to_one_another_are_refused() -> None:
    both = asking("sharing: shared", "{from: '${resources.two.host}'}", alias="one") + asking(
        "sharing: shared", "{from: '${resources.one.host}'}", alias="two"
    )
    with pytest.raises(PlanError, match="These need one another: one → two → one"):
        decide(workloads(score("api", both)), empty())


def test_a_private_resource_is_never_found() -> None:
    _, after = deploy(empty(), "shop", asking("sharing: dedicated"))
    plan, _ = deploy(after, "pay", asking("sharing: shared-always"))

    assert list(actions(plan).values()) == ["create"]
    assert plan.bindings[0].considered == ()


def test_one_and_true_are_different_values() -> None:
    version = make_version("database", params={"on": {}})
    _, after = deploy(empty(version), "shop", asking(matching("matchOn: [on]"), "{on: 1}"))
    plan, _ = deploy(after, "pay", asking(matching("matchOn: [on]"), "{on: true}"))

    assert list(actions(plan).values()) == ["create"]


RESOURCES = st.builds(
    live,
    st.text("abcdef", min_size=1, max_size=3),
    size=st.sampled_from([3, 4]),
    team=st.sampled_from(["one", "two"]),
    created_at=st.sampled_from(["1", "2", "3"]),
    max_consumers=st.sampled_from([None, 1, 2]),
)


@given(st.lists(RESOURCES, max_size=8, unique_by=lambda each: each.key), st.data())
def test_the_best_ranked_that_fits_is_taken_in_any_order_of_rows(
    resources: list[ResourceFacts], data: st.DataObject
) -> None:
    users = [
        each.key for each in resources for _ in range(data.draw(st.integers(0, 2), label=each.key))
    ]
    ask = workloads(score("api", asking("sharing: shared")))
    plan = decide(ask, among(*resources, users=users))
    shuffled = data.draw(st.permutations(resources))
    again = decide(ask, among(*shuffled, users=users))

    fitting = [
        each
        for each in resources
        if each.params == {"size": 3}
        and each.slot is not None
        and users.count(each.key) < (each.slot.max_consumers or 99)
    ]
    best = min(
        fitting,
        key=lambda each: (each.owner_team != "one", each.created_at, each.key),
        default=None,
    )
    assert bound(plan) == bound(again)
    assert plan.to_json() == again.to_json()
    if best is None:
        assert list(actions(plan).values()) == ["create"]
    else:
        assert bound(plan) == {"db": best.key}
