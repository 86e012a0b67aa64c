from __future__ import annotations

import random

import pytest

from provisioning.planning.decide import decide
from provisioning.planning.facts import Snapshot, VersionFacts
from provisioning.planning.plan import PlanError
from tests.provisioning.planning.facts import (
    actions,
    carried_out,
    make_snapshot,
    make_version,
    score,
    workloads,
)

KEY = "component/shop/database.default#primary"
DATABASE = {
    "tier": {"type": "string", "default": "small"},
    "size": {"type": "integer"},
    "word": {"type": "string", "writeOnly": True},
}
RULES = {"tier": {"rule": "priority"}, "size": {"rule": "maximum"}}
SAME_TIER = {"condition": "params.tier == wish.tier", "message": "It cannot do with another tier."}


def database(**more) -> VersionFacts:
    return make_version(
        "database",
        **{"version_id": 9, "params": DATABASE, "merge_rules": RULES, "outputs": {"room": False}}
        | more,
    )


def component(name: str, *validators, version_id=1, priority=0, **params) -> VersionFacts:
    need = {
        "key": "primary",
        "type": "database",
        "priority": priority,
        "params": params,
        "validators": list(validators),
    }
    return make_version(name, version_id=version_id, params={"a": {}}, requirements=(need,))


def asking(*types: str) -> str:
    return "".join(f"{type_}s: {{type: {type_}}}\n" for type_ in types)


def refusal(snapshot: Snapshot, *files: str) -> str:
    with pytest.raises(PlanError) as refused:
        decide(workloads(*files), snapshot)
    return str(refused.value)


def test_what_the_merge_makes_unsuitable_is_refused_with_all_names():
    snapshot = make_snapshot(
        component("api", SAME_TIER, tier="big"),
        component("site", priority=5, tier="small", version_id=2),
        database(),
    )
    files = score("web", asking("api")), score("shop", asking("site"))

    assert refusal(snapshot, *files) == (
        "0.yaml:8:9: For `apis/primary`: component/shop/database.default#primary does not suit what "
        "api 1.0.0 requires as `primary` for shop/web.apis: It cannot do with another tier "
        '(params.tier is "small", wish.tier is "big"). tier is decided by shop/shop.sites/primary. '
        "(ask for what it needs, or use another `id` or name for a resource of your own)"
    )


def test_a_wish_that_makes_it_unsuitable_for_another_workload_is_refused():
    snapshot = make_snapshot(
        component("api", SAME_TIER, tier="big"),
        component("site", priority=5, tier="small", version_id=2),
        database(),
    )
    snapshot = carried_out(decide(workloads(score("web", asking("api"))), snapshot), snapshot)

    told = refusal(snapshot, score("shop", asking("site")))

    assert told.startswith(
        "0.yaml:8:10: For `sites/primary`: component/shop/database.default#primary "
    )
    assert "does not suit what api 1.0.0 requires as `primary` for shop/web.apis: " in told


def test_who_leaves_takes_nothing_away_that_makes_it_unsuitable():
    roomy = {"condition": "params.size >= 5", "message": "It needs room."}
    snapshot = make_snapshot(
        component("api", roomy), component("site", size=7, version_id=2), database()
    )
    files = workloads(score("web", asking("api")), score("shop", asking("site")))
    snapshot = carried_out(decide(files, snapshot), snapshot)

    plan = decide(workloads(score("shop")), snapshot)

    assert actions(plan) == {KEY: "release", "private/shop/shop/sites/site.default": "destroy"}
    (kept,) = (each for each in plan.resources if each.key == KEY)
    assert kept.params == {"size": 7}


@pytest.mark.parametrize(
    ("condition", "suits"),
    [
        ("params.tier == 'small'", True),
        ("params.tier == 'big'", False),
        ("params.tier == 'big' or outputs.room", True),
        ("params.tier == 'big' and outputs.room", False),
        ("params.size == wish.size", True),
        ("not params.size", False),
        ("outputs.room > 3", True),
    ],
)
def test_only_what_is_certain_is_refused(condition: str, suits: bool):
    demanded = {"condition": condition, "message": "It is not right."}
    snapshot = make_snapshot(component("api", demanded, size=3), database())

    if suits:
        assert len(decide(workloads(score("web", asking("api"))), snapshot).steps) == 2
    else:
        assert "It is not right" in refusal(snapshot, score("web", asking("api")))


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("outputs.rooom > 3", "names the output rooom, which it does not declare."),
        ("params.siez > 3", "names the param siez, which it does not have."),
        ("params.word == 'x'", "names the param word, which is sensitive."),
    ],
)
def test_names_that_the_serving_template_does_not_have_are_refused(condition: str, told: str):
    demanded = {"condition": condition, "message": "It is not right."}
    snapshot = make_snapshot(component("api", demanded), database())

    assert told in refusal(snapshot, score("web", asking("api")))


ROOM = {"condition": "outputs.room >= wish.size", "message": "It needs room."}
SHARED = "users:\n  type: api\n  reference: {mode: shared, name: common}\n"


def test_who_joins_a_component_that_looks_at_outputs_gets_its_step():
    snapshot = make_snapshot(component("api", ROOM, size=3), database())
    first = decide(workloads(score("web", SHARED)), snapshot)
    snapshot = carried_out(first, snapshot)
    both = workloads(score("web", SHARED), score("mail", SHARED))

    joined = decide(both, snapshot)

    assert [step.key for step in joined.steps] == ["shared/common"]
    assert joined.touched == frozenset()
    assert decide(both, carried_out(joined, snapshot)).steps == ()


def test_a_component_with_validators_is_rechecked_when_what_it_requires_is_updated():
    snapshot = make_snapshot(
        component("api", ROOM, size=3), component("site", size=7, version_id=2), database()
    )
    snapshot = carried_out(decide(workloads(score("web", asking("api"))), snapshot), snapshot)

    plan = decide(workloads(score("shop", asking("site"))), snapshot)

    assert actions(plan) == {
        KEY: "update",
        "private/shop/web/apis/api.default": "recheck",
        "private/shop/shop/sites/site.default": "create",
    }


def test_order_of_files_and_rows_changes_no_refusal():
    snapshot = make_snapshot(
        component("api", SAME_TIER, tier="big"),
        component("site", priority=5, tier="small", version_id=2),
        database(),
    )
    files = [
        score("web", asking("api")),
        score("blog", asking("api")),
        score("shop", asking("site")),
    ]
    told = set()
    for seed in range(20):
        shuffled = workloads(*files)
        random.Random(seed).shuffle(shuffled)
        with pytest.raises(PlanError) as refused:
            decide(shuffled, snapshot)
        told.add(str(refused.value))
    (only,) = told
    assert "for shop/blog.apis, shop/web.apis: " in only
