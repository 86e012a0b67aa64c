from __future__ import annotations

from dataclasses import replace
from typing import Any

from provisioning.planning.decide import decide, decide_teardown
from provisioning.planning.facts import Snapshot
from provisioning.planning.plan import Plan
from tests.provisioning.planning.facts import carried_out, make_snapshot, score, workloads

CACHE = "cache:\n  type: queue\n  reference: {mode: shared, name: cache}\n"


def asked(plan: Plan) -> list[tuple[str, str, bool]]:
    return [(each.kind, each.team, each.joins) for each in plan.questions]


def others(**changes: Any) -> Snapshot:
    """Return what billing of team two meets: a cache of team one, which shop uses."""
    snapshot = make_snapshot()
    snapshot = carried_out(decide(workloads(score("web", CACHE)), snapshot), snapshot)
    resources = {key: replace(each, **changes) for key, each in snapshot.resources.items()}
    return replace(snapshot, application="billing", team="two", resources=resources)


def plan_of(snapshot: Snapshot, resources: str = CACHE) -> Plan:
    return decide(workloads(score("api", resources)), snapshot)


def test_a_join_across_teams_is_a_question_in_the_digest() -> None:
    closed, open_ = plan_of(others()), plan_of(others(sharing_policy="open"))

    assert asked(closed) == [("resource", "one", True)]
    assert asked(open_) == []
    assert closed.digest != open_.digest
    assert closed.to_json()["questions"][0]["users"] == ["shop/web"]


def test_the_own_team_and_the_granted_ask_nobody() -> None:
    assert asked(plan_of(replace(others(), team="one"))) == []
    assert asked(plan_of(others(granted=True, sharing_policy="closed"))) == []


def test_a_change_is_asked_even_if_the_use_was_granted() -> None:
    changed = plan_of(others(granted=True), CACHE + "  params: {size: 2}\n")

    assert asked(changed) == [("resource", "one", False)]
    assert changed.questions[0].changes == ({"param": "size", "before": None, "after": 2},)


def test_who_uses_a_resource_counts_only_where_it_changes() -> None:
    snapshot = others()
    more = replace(
        snapshot,
        consumers=[*snapshot.consumers, replace(snapshot.consumers[0], workload="jobs")],
    )
    sized = CACHE + "  params: {size: 2}\n"

    assert plan_of(snapshot).questions[0].digest == plan_of(more).questions[0].digest
    assert plan_of(snapshot, sized).questions[0].digest != plan_of(more, sized).questions[0].digest


def test_a_new_dependency_of_what_another_team_owns_is_asked() -> None:
    snapshot = others(granted=True)
    needing = CACHE + "  dependsOn: [own]\nown: {type: database}\n"
    own = "private/billing/api/own/database.default"

    plan = plan_of(snapshot, needing)

    (question,) = plan.questions
    assert question.changes == ({"param": "dependencies", "before": [], "after": [own]},)
    assert question.text == "billing of the team two asks to change dependencies of shared/cache."
    there = carried_out(plan, snapshot)
    assert asked(plan_of(there, needing)) == []
    assert asked(plan_of(there)) == []


def test_leaving_is_no_question() -> None:
    snapshot = others()
    joined = carried_out(plan_of(snapshot), snapshot)

    assert asked(plan_of(joined, "")) == []
    assert asked(plan_of(joined)) == []


def test_a_protected_environment_asks_about_every_deployment() -> None:
    snapshot = replace(make_snapshot(), protected=True)
    plan = decide(workloads(score("web", CACHE)), snapshot)

    assert asked(plan) == [("deployment", "one", False)]
    assert asked(decide_teardown(None, carried_out(plan, snapshot))) == [
        ("deployment", "one", False)
    ]
