from __future__ import annotations

import random
from dataclasses import replace

import pytest

from provisioning.planning.decide import decide
from provisioning.planning.facts import VersionFacts
from provisioning.planning.plan import PlanError
from tests.provisioning.planning.facts import (
    actions,
    carried_out,
    make_snapshot,
    make_version,
    score,
    workloads,
)

UNION = {"databases": {"rule": "union"}}
DATABASE = {
    "databases": {"type": "array", "maxItems": 3},
    "tier": {"type": "string"},
    "region": {"type": "string", "default": "east"},
}
API_PARAMS = {"entity": {"type": "string"}, "region": {"type": "string"}}
NEEDS_DATABASE = {
    "key": "primary",
    "type": "database",
    "params": {"databases": ["${params.entity | lower}-db"], "region": "${params.region}"},
}
KEY = "component/shop/database.default#primary"


def database(**more) -> VersionFacts:
    return make_version(
        "database", **{"version_id": 9, "params": DATABASE, "merge_rules": UNION, **more}
    )


def component(name="api", *needs, version_id=1, **more) -> VersionFacts:
    return make_version(
        name,
        **{
            "version_id": version_id,
            "params": API_PARAMS,
            "requirements": needs or (NEEDS_DATABASE,),
            "inputs": {"output.host": "${primary.host}"} if not needs else {},
            **more,
        },
    )


def api(alias, entity, more=""):
    return f"{alias}:\n  type: api\n  params: {{entity: {entity}{more}}}\n"


def plan_of(snapshot, *resources, name="web"):
    return decide(workloads(score(name, "".join(resources))), snapshot)


def resource(plan, key):
    (found,) = (each for each in plan.resources if each.key == key)
    return found


def refusal(snapshot, *resources):
    with pytest.raises(PlanError) as refused:
        plan_of(snapshot, *resources)
    return str(refused.value)


def test_three_components_get_one_account_with_three_databases():
    snapshot = make_snapshot(component(), database())
    plan = plan_of(snapshot, api("users", "User"), api("posts", "Post"), api("tags", "Tag"))

    account = resource(plan, KEY)
    assert account.params == {"databases": ["post-db", "tag-db", "user-db"]}
    assert [each.alias for each in account.consumers] == [
        "posts/primary",
        "tags/primary",
        "users/primary",
    ]
    assert len(plan.resources) == 4


def test_component_takes_the_output_of_what_it_requires():
    plan = plan_of(make_snapshot(component(), database()), api("users", "User"))

    users = resource(plan, "private/shop/web/users/api.default")
    assert users.params == {
        "entity": "User",
        "output.host": r"${resources.component/shop/database\.default#primary.host}",
    }
    assert users.depends_on == {KEY: "output"}
    assert [each.key for each in plan.steps] == [KEY, users.key]


def test_conflict_names_both_paths():
    needs = NEEDS_DATABASE | {"params": {"tier": "${params.entity}"}}
    snapshot = make_snapshot(component("api", needs), database())

    told = refusal(snapshot, api("users", "User"), api("posts", "Post"))
    assert "the parameter `tier` is" in told
    assert "users/primary" in told
    assert "posts/primary" in told


def test_needs_that_differ_in_what_they_share_by_are_two():
    snapshot = make_snapshot(component(), database(share_same=("region",)))
    plan = plan_of(
        snapshot,
        api("users", "User", ", region: east"),
        api("posts", "Post"),
        api("tags", "Tag", ", region: west"),
    )

    accounts = [each.params for each in plan.resources if each.type == "database"]
    assert sorted(each["databases"] for each in accounts) == [["post-db", "user-db"], ["tag-db"]]


def test_components_nest():
    suite = component(
        "suite", {"key": "users", "type": "api", "params": {"entity": "User"}}, version_id=2
    )
    plan = plan_of(make_snapshot(component(), suite, database()), "all:\n  type: suite\n")

    assert [each.alias for each in plan.bindings] == ["all", "all/users", "all/users/primary"]
    assert [each.origin for each in plan.bindings] == ["declared", "required", "required"]
    assert resource(plan, KEY).params == {"databases": ["user-db"]}


def test_cycle_of_components_is_refused_by_name():
    one = component("one", {"key": "it", "type": "two"}, version_id=1)
    two = component("two", {"key": "it", "type": "one"}, version_id=2)

    told = refusal(make_snapshot(one, two), "a1:\n  type: one\n")
    assert "two.default → one.default → two.default" in told


def test_output_that_the_need_does_not_declare_is_refused():
    wrong = component(inputs={"output.host": "${primary.hostt}"})
    told = refusal(make_snapshot(wrong, database()), api("users", "User"))
    assert "`hostt`" in told
    assert "it has host, password" in told


def test_need_without_a_template_names_its_path():
    told = refusal(make_snapshot(component()), api("users", "User"))
    assert "No template serves `database.default` for `users/primary`" in told


def test_required_param_that_is_left_out_is_told():
    snapshot = make_snapshot(component(required=("entity",), inputs={}), database())
    told = refusal(snapshot, "users:\n  type: api\n")
    assert "The parameter `entity` is missing" in told


def test_param_that_the_template_fills_in_cannot_be_given():
    filled = make_version(
        "api", requirements=(NEEDS_DATABASE | {"params": {}},), inputs={"from": "${primary.host}"}
    )
    told = refusal(make_snapshot(filled, database()), "users:\n  type: api\n  params: {from: me}\n")
    assert "`from` is filled in by the template" in told


def test_limit_counts_all_components_together():
    limited = database(merge_rules={"databases": {"rule": "union", "limit": 2}})
    snapshot = make_snapshot(component(), limited)
    two = [api("users", "User"), api("posts", "Post")]
    assert len(plan_of(snapshot, *two).resources) == 3
    assert "2 items at most" in refusal(snapshot, *two, api("tags", "Tag"))


def test_higher_priority_of_a_need_wins():
    def needs(priority):
        return {
            "key": "primary",
            "type": "database",
            "priority": priority,
            "params": {"tier": "${params.entity}"},
        }

    low = component("api", needs(1))
    high = component("big", needs(2), version_id=2)
    served = database(merge_rules={"tier": {"rule": "priority"}})
    plan = plan_of(
        make_snapshot(low, high, served),
        api("aa", "one"),
        api("bb", "two").replace("type: api", "type: big"),
    )
    assert resource(plan, KEY).params == {"tier": "two"}


def test_component_removed_from_the_file_releases_its_needs():
    snapshot = make_snapshot(component(), database())
    snapshot = carried_out(plan_of(snapshot, api("users", "User"), api("posts", "Post")), snapshot)

    plan = plan_of(snapshot, api("users", "User"))
    assert {each.alias for each in plan.releases} == {"posts", "posts/primary"}
    assert actions(plan) == {
        KEY: "update",
        "private/shop/web/users/api.default": "recheck",
        "private/shop/web/posts/api.default": "destroy",
    }
    assert resource(plan, KEY).params == {"databases": ["user-db"]}


def test_component_without_params_asks_for_the_same_again():
    plain = component("api", {"key": "primary", "type": "database", "params": {"tier": "small"}})
    snapshot = make_snapshot(plain, database())
    first = plan_of(snapshot, "users:\n  type: api\n")
    again = plan_of(carried_out(first, snapshot), "users:\n  type: api\n")
    assert set(actions(again).values()) == {"unchanged"}
    assert again.steps == ()


def bucket_with(**said):
    beside = {"type": "policy", "params": {"from": "${self.host}"}, **said}
    return [
        make_version("bucket", co_provision=(beside,)),
        make_version("policy", version_id=2),
        make_version("reader", version_id=3),
    ]


READS = "store: {type: bucket}\nreader:\n  type: reader\n  dependsOn: [store]\n"
BUCKET, POLICY = "private/shop/web/store/bucket.default", "private/shop/web/store/policy.default"
READER = "private/shop/web/reader/reader.default"


def test_co_provisioned_may_take_outputs_of_what_brings_it():
    plan = plan_of(make_snapshot(*bucket_with()), READS)
    assert resource(plan, POLICY).depends_on == {BUCKET: "output"}
    assert resource(plan, READER).depends_on == {BUCKET: "strong"}


def test_co_provisioned_that_is_dependent_depends_on_what_brings_it():
    plan = plan_of(make_snapshot(*bucket_with(params={}, is_dependent=True)), READS)
    assert resource(plan, POLICY).depends_on == {BUCKET: "strong"}


def test_dependents_are_copied_to_the_co_provisioned():
    plan = plan_of(make_snapshot(*bucket_with(copy_dependents=True)), READS)
    assert resource(plan, READER).depends_on == {BUCKET: "strong", POLICY: "strong"}
    assert [each.origin for each in plan.bindings] == ["declared", "declared", "followed"]


def test_co_provisioned_that_needs_what_brings_it_and_is_needed_by_it_is_refused():
    bucket, policy, _ = bucket_with(params={}, is_dependent=True)
    policy = replace(policy, co_provision=({"type": "bucket", "is_dependent": True},))
    with pytest.raises(PlanError) as refused:
        plan_of(make_snapshot(bucket, policy), "store: {type: bucket}\n")
    assert f"These need one another: {BUCKET} → {POLICY} → {BUCKET}." in str(refused.value)


def test_co_provisioned_by_itself_without_depending_is_one():
    bucket = make_version("bucket", co_provision=({"type": "bucket"},))
    plan = plan_of(make_snapshot(bucket), "store: {type: bucket}\n")
    assert [(each.key, dict(each.depends_on)) for each in plan.resources] == [(BUCKET, {})]


def test_needs_of_a_shared_resource_are_one_for_all_applications():
    shared = (
        "users:\n  type: api\n  reference: {mode: shared, name: common}\n  params: {entity: User}\n"
    )
    snapshot = make_snapshot(component(), database())
    snapshot = carried_out(plan_of(snapshot, shared), snapshot)
    plan = plan_of(replace(snapshot, application="mail"), shared)
    assert actions(plan) == {
        "shared/common": "reuse",
        "with/shared/common/database.default#primary": "reuse",
    }


def test_order_of_files_and_keys_changes_nothing():
    snapshot = make_snapshot(component(), database(share_same=("region",)))
    entities = {"users": "User", "posts": "Post", "tags": "Tag"}
    digests = set()
    for seed in range(20):
        files = []
        for name in ("web", "worker"):
            aliases = list(entities)
            random.Random(f"{seed}{name}").shuffle(aliases)
            files.append(score(name, "".join(api(alias, entities[alias]) for alias in aliases)))
        random.Random(seed).shuffle(files)
        digests.add(decide(workloads(*files), snapshot).digest)
    assert len(digests) == 1


def test_defaults_fill_only_what_nobody_asks_for():
    served = database(params=DATABASE | {"tags": {"type": "object"}}, merge_rules={})
    defaults = {
        "*": {"tier": "small", "tags": {"team": "all", "cost": "1"}},
        "database": {"region": "west"},
    }
    snapshot = make_snapshot(served, defaults=defaults)
    plan = plan_of(snapshot, "db:\n  type: database\n  params: {tier: big, tags: {team: web}}\n")
    (only,) = plan.resources
    assert only.params == {"tier": "big", "tags": {"team": "web", "cost": "1"}, "region": "west"}
    assert only.decided_by["region"] == ("environment dev",)
    assert only.decided_by["tier"] == ("shop/web.db",)


def test_default_satisfies_what_is_required():
    served = database(required=("tier",), merge_rules={})
    plan = plan_of(
        make_snapshot(served, defaults={"database": {"tier": "small"}}), "db: {type: database}\n"
    )
    assert plan.resources[0].params == {"tier": "small"}


def test_default_that_the_template_refuses_is_told():
    served = database(merge_rules={})
    told = refusal(
        make_snapshot(served, defaults={"database": {"tier": 3}}), "db: {type: database}\n"
    )
    assert "3 is not accepted" in told
