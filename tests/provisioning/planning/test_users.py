from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings

from provisioning.planning.decide import decide, decide_teardown
from provisioning.planning.facts import Snapshot, TemplateFacts, WorkloadFacts
from provisioning.planning.maintenance import decide_destroy
from provisioning.planning.plan import Plan, PlannedResource
from tests.provisioning.planning.facts import (
    actions,
    carried_out,
    make_snapshot,
    make_version,
    score,
    workloads,
)
from tests.provisioning.planning.test_properties import applications

COMMON = "shared/common"
BOX = "private/mail/web/box/box.default"
SHARED = "common:\n  type: database\n  reference: {mode: shared, name: common}\n"
BOXED = SHARED + "box:\n  type: box\n  params: {from: '${resources.common.password}'}\n"


def own(name: str = "database", **more: object) -> Snapshot:
    """Return the place of `shop`, whose databases give each user outputs of its own."""
    return make_snapshot(
        make_version(name, uses=("consumers",)), make_version("box", version_id=2), **more
    )


def used_by(application: str, resources: str, before: Snapshot) -> Snapshot:
    """Return the environment once an application's workload `web` has been deployed."""
    mine = replace(before, application=application, team=application)
    after = carried_out(decide(workloads(score("web", resources)), mine), mine)
    known = {"web": WorkloadFacts("web")}
    return replace(after, workloads=known)


def shared_by_two(resources: str = SHARED) -> Snapshot:
    """Return what `mail` finds when it shares the database of `shop`."""
    return used_by("mail", resources, used_by("shop", SHARED, own()))


def planned(plan: Plan, key: str = COMMON) -> PlannedResource:
    return next(each for each in plan.resources if each.key == key)


def steps(plan: Plan) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(each.action, each.key, each.needs) for each in plan.steps]


def mail_plans(resources: str, snapshot: Snapshot) -> Plan:
    mine = replace(snapshot, application="mail", team="mail")
    return decide(workloads(score("web", resources)), mine)


def test_a_join_is_a_step_and_no_update() -> None:
    plan = mail_plans(SHARED, used_by("shop", SHARED, own()))

    assert actions(plan) == {COMMON: "reuse"}
    assert planned(plan).joining == ("mail/web.common",)
    assert steps(plan) == [("ensure", COMMON, ())]
    assert (plan.blast_radius(), plan.touched) == ({}, frozenset())


def test_a_join_asks_the_owners_what_it_asks_without_credentials() -> None:
    shared = used_by("shop", SHARED, own())
    without = replace(
        shared,
        resources={
            key: replace(each, version=replace(each.version, uses=()))
            for key, each in shared.resources.items()
        },
    )
    granted = replace(
        shared,
        resources={key: replace(each, granted=True) for key, each in shared.resources.items()},
    )

    assert mail_plans(SHARED, shared).questions == mail_plans(SHARED, without).questions
    assert mail_plans(SHARED, granted).questions == ()


def test_who_leaves_asks_nobody_and_leaves_the_others_alone() -> None:
    plan = decide_teardown(None, shared_by_two())

    assert actions(plan) == {COMMON: "release"}
    assert (planned(plan).joining, planned(plan).leaving) == ((), ("mail/web.common",))
    assert steps(plan) == [("ensure", COMMON, ())]
    assert (plan.questions, plan.blast_radius(), plan.touched) == ((), {}, frozenset())


def test_the_last_who_leaves_needs_no_step_but_the_destroy() -> None:
    plan = decide_teardown(None, used_by("shop", SHARED, own()))

    assert steps(plan) == [("destroy", COMMON, ())]


def test_nothing_is_done_if_nobody_comes_or_goes() -> None:
    snapshot = shared_by_two()

    assert mail_plans(SHARED, snapshot).changes_nothing


def test_what_looks_at_its_users_only_is_not_asked_for_by_others() -> None:
    """Tags that changed reach it when a workload that uses it is deployed, as without users."""
    snapshot = replace(used_by("shop", SHARED, own()), application="shop", team="shop")

    plan = decide(workloads(score("jobs")), replace(snapshot, tags={"cost": "7"}))

    assert actions(plan) == {}


def test_an_alias_that_is_renamed_is_somebody_else() -> None:
    plan = mail_plans(SHARED.replace("common:", "other:", 1), shared_by_two())

    assert (planned(plan).joining, planned(plan).leaving) == (
        ("mail/web.other",),
        ("mail/web.common",),
    )
    assert steps(plan) == [("ensure", COMMON, ())]


def test_what_takes_outputs_is_a_user_itself() -> None:
    plan = mail_plans(BOXED, used_by("shop", SHARED, own()))

    assert planned(plan).joining == ("mail/web.common", BOX)
    assert steps(plan) == [("ensure", COMMON, ()), ("ensure", BOX, (COMMON,))]


def test_a_user_that_goes_is_dropped_after_it_has_gone() -> None:
    plan = mail_plans(SHARED, shared_by_two(BOXED))

    assert actions(plan) == {COMMON: "unchanged", BOX: "destroy"}
    assert planned(plan).leaving == (BOX,)
    assert steps(plan) == [("destroy", BOX, ()), ("ensure", COMMON, (BOX,))]


def test_a_user_that_turns_to_another_is_dropped_after_that() -> None:
    other = SHARED.replace("common", "other")
    before = shared_by_two(BOXED + other)
    plan = mail_plans(BOXED.replace("resources.common", "resources.other") + other, before)

    assert steps(plan) == [
        ("ensure", "shared/other", ()),
        ("ensure", BOX, ("shared/other",)),
        ("ensure", COMMON, (BOX,)),
    ]


def test_a_user_that_comes_back_is_brought_about_again() -> None:
    """After a revocation its own input is as before, but what it is given is new."""
    before = shared_by_two(BOXED)
    revoked = replace(
        before,
        consumers=[each for each in before.consumers if each.key != COMMON],
        dependencies={},
    )

    plan = mail_plans(BOXED, revoked)

    assert actions(plan) == {COMMON: "reuse", BOX: "recheck"}
    assert planned(plan, BOX).reason == f"may update after {COMMON}"
    assert steps(plan) == [("ensure", COMMON, ()), ("ensure", BOX, (COMMON,))]


def test_what_only_a_component_is_given_makes_no_user() -> None:
    before = used_by("shop", SHARED, own())
    inside = replace(before.consumers[0], application="mail", alias="users/common")

    plan = decide_teardown(
        None, replace(before, application="mail", consumers=[*before.consumers, inside])
    )

    assert (actions(plan), plan.steps) == ({COMMON: "release"}, ())


def test_an_upgrade_tells_everybody_who_is_given_its_own() -> None:
    before = used_by("mail", BOXED, used_by("shop", SHARED, make_snapshot(
        make_version("database"), make_version("box", version_id=2)
    )))  # fmt: skip
    newer = make_version("database", version_id=3, version="2.0.0", uses=("consumers",))
    snapshot = replace(
        before,
        application="shop",
        team="shop",
        templates={**before.templates, 1: TemplateFacts(1, "database", newer)},
    )

    plan = decide(workloads(score("web", SHARED)), snapshot, upgrade=True)

    assert actions(plan) == {COMMON: "update", BOX: "recheck"}
    assert planned(plan).joining == ("mail/web.common", BOX, "shop/web.common")
    assert plan.blast_radius() == {
        "": {"mail/web": ["box.default#web.box", "database.default#web.common"]}
    }


def test_what_was_adopted_gives_all_the_same() -> None:
    shared = used_by("shop", SHARED, own())
    adopted = {key: replace(each, adopted=True) for key, each in shared.resources.items()}

    assert mail_plans(SHARED, replace(shared, resources=adopted)).steps == ()


def test_a_forced_destroy_drops_what_the_destroyed_was_given() -> None:
    before = shared_by_two(BOXED)

    plan = decide_destroy(BOX, replace(before, application=""), forced=True)

    assert steps(plan) == [("destroy", BOX, ()), ("ensure", COMMON, (BOX,))]


@settings(deadline=None)
@given(applications(), applications())
def test_steps_can_be_ordered_whoever_comes_and_goes(first: list[str], then: list[str]) -> None:
    snapshot = make_snapshot(make_version("queue", uses=("consumers",)))
    before = carried_out(decide(workloads(*first), snapshot), snapshot)

    plan = decide(workloads(*then), before)

    done: set[str] = set()
    for step in plan.steps:
        assert done >= set(step.needs)
        done.add(step.key)
