from __future__ import annotations

import json
from dataclasses import replace

import pytest

from provisioning.planning.decide import decide, decide_teardown
from provisioning.planning.facts import RuleFacts, Snapshot, WorkloadFacts
from provisioning.planning.plan import Change, PlanError
from tests.provisioning.planning.facts import (
    actions,
    carried_out,
    make_snapshot,
    make_version,
    score,
    workloads,
)

DB = "private/shop/api/db/database.default"
JOBS = "private/shop/api/jobs/queue.default"
COMMON = "shared/common"
DB_AND_JOBS = """\
db:
  type: database
  params: {size: 3}
jobs:
  type: queue
  params: {from: "amqp://${resources.db.host}"}
"""
SHARED = """\
common:
  type: database
  reference: {mode: shared, name: common}
  params: {size: 3}
"""


def deployed(*texts: str, snapshot: Snapshot | None = None) -> Snapshot:
    """Return the environment in which these Score texts have been carried out."""
    before = snapshot or make_snapshot()
    read = workloads(*texts)
    after = carried_out(decide(read, before), before)
    known = {each.name: WorkloadFacts(each.name) for each in read}
    return replace(after, workloads=dict(after.workloads) | known)


def refusal(text: str, snapshot: Snapshot | None = None) -> list[tuple[int, str, str]]:
    """Return line, message and hint of each problem with which a Score text is refused."""
    with pytest.raises(PlanError) as refused:
        decide(workloads(text), snapshot or make_snapshot())
    return [(each.line, each.message, each.hint) for each in refused.value.problems]


def steps(plan) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(each.action, each.key, each.needs) for each in plan.steps]


def test_new_resources_are_created_after_what_they_need():
    plan = decide(workloads(score("api", DB_AND_JOBS)), make_snapshot())

    assert actions(plan) == {DB: "create", JOBS: "create"}
    assert steps(plan) == [("ensure", DB, ()), ("ensure", JOBS, (DB,))]


def test_params_are_stored_with_references_bound_to_keys():
    plan = decide(workloads(score("api", DB_AND_JOBS)), make_snapshot())

    jobs = plan.resources[1]
    assert jobs.params == {
        "from": r"amqp://${resources.private/shop/api/db/database\.default.host}"
    }
    assert jobs.depends_on == {DB: "output"}


def test_plan_is_the_same_bytes_in_any_order_of_keys():
    params = {"type": "object", "additionalProperties": True}
    snapshot = make_snapshot(make_version("database", params={"one": params, "two": params}))
    resources = "db:\n  type: database\n  params: {%s}\n  metadata: {%s}"
    first = resources % ("one: {a: 1, b: [{c: 1, d: 2}]}, two: {}", "x: 1, y: 2")
    second = resources % ("two: {}, one: {b: [{d: 2, c: 1}], a: 1}", "y: 2, x: 1")

    plans = [decide(workloads(score("api", each)), snapshot) for each in (first, second)]

    assert len({json.dumps(plan.to_json()) for plan in plans}) == 1


def test_metadata_in_params_is_filled_in_when_planning():
    text = score("api", "db:\n  type: database\n  params: {from: '$${x} ${metadata.name}'}")

    plan = decide(workloads(text), make_snapshot())

    assert plan.resources[0].params == {"from": "$${x} api"}


def test_what_is_as_it_shall_be_gets_no_step():
    text = score("api", DB_AND_JOBS)

    plan = decide(workloads(text), deployed(text))

    assert actions(plan) == {DB: "unchanged", JOBS: "unchanged"}
    assert plan.changes_nothing


def test_changed_param_updates_and_rechecks_what_takes_its_outputs():
    snapshot = deployed(score("api", DB_AND_JOBS))

    plan = decide(workloads(score("api", DB_AND_JOBS.replace("3", "4"))), snapshot)

    assert actions(plan) == {DB: "update", JOBS: "recheck"}
    assert plan.resources[0].changes == (Change("size", 3, 4),)
    assert steps(plan) == [("ensure", DB, ()), ("ensure", JOBS, (DB,))]


def test_update_rechecks_resources_of_other_applications_and_names_them():
    snapshot = deployed(score("api", SHARED))
    other = replace(snapshot, application="mail")
    consumer = score(
        "web",
        "common:\n  type: database\n  reference: {mode: shared, name: common}\n"
        "jobs:\n  type: queue\n  params: {from: '${resources.common.host}'}",
    )
    snapshot = replace(deployed(consumer, snapshot=other), application="shop")

    plan = decide(workloads(score("api", SHARED.replace("3", "4"))), snapshot)

    assert actions(plan) == {
        COMMON: "update",
        "private/mail/web/jobs/queue.default": "recheck",
    }
    assert plan.blast_radius() == {
        "": {"mail/web": ["database.default#api.common", "queue.default#web.jobs"]}
    }


def test_two_resources_may_change_which_of_them_needs_the_other():
    one = "aa:\n  type: queue\n  params: {from: '${resources.bb.host}'}\nbb:\n  type: queue\n"
    other = "aa:\n  type: queue\nbb:\n  type: queue\n  params: {from: '${resources.aa.host}'}\n"

    plan = decide(workloads(score("api", other)), deployed(score("api", one)))

    aa, bb = (f"private/shop/api/{name}/queue.default" for name in ("aa", "bb"))
    assert steps(plan) == [("ensure", aa, ()), ("ensure", bb, (aa,))]


def test_unfinished_resource_is_ensured_again():
    text = score("api", DB_AND_JOBS)
    before = make_snapshot()
    started = carried_out(decide(workloads(text), before), before, clean=False)

    plan = decide(workloads(text), started)

    assert actions(plan) == {DB: "unchanged", JOBS: "unchanged"}
    assert steps(plan) == [("ensure", DB, ()), ("ensure", JOBS, (DB,))]


def test_digest_does_not_depend_on_progress():
    text = score("api", DB_AND_JOBS)
    before = make_snapshot()
    plan = decide(workloads(text), before)

    half_way = carried_out(plan, before, clean=False)
    done = carried_out(plan, before)

    assert decide(workloads(text), half_way).digest == decide(workloads(text), done).digest


def test_resource_that_the_file_no_longer_names_is_destroyed_last():
    snapshot = deployed(score("api", DB_AND_JOBS))

    plan = decide(workloads(score("api", "jobs:\n  type: queue")), snapshot)

    assert actions(plan) == {DB: "destroy", JOBS: "update"}
    assert steps(plan) == [("ensure", JOBS, ()), ("destroy", DB, (JOBS,))]
    assert [(each.alias, each.key) for each in plan.releases] == [("db", DB)]


def test_workloads_outside_the_given_files_stay():
    snapshot = deployed(score("api", DB_AND_JOBS), score("web", SHARED))

    plan = decide(workloads(score("web")), snapshot)

    assert actions(plan) == {COMMON: "destroy"}


def test_shared_name_is_reused_by_another_application():
    snapshot = replace(deployed(score("api", SHARED)), application="mail")

    plan = decide(workloads(score("web", SHARED)), snapshot)

    assert actions(plan) == {COMMON: "reuse"}
    assert plan.steps == ()
    assert [each.application for each in plan.resources[0].consumers] == ["mail", "shop"]


def test_released_shared_resource_stays_with_its_other_consumers():
    snapshot = deployed(score("api", SHARED))
    snapshot = deployed(score("web", SHARED), snapshot=replace(snapshot, application="mail"))

    plan = decide_teardown(None, snapshot)

    assert [(each.key, each.action, each.reason) for each in plan.resources] == [
        (COMMON, "release", "still used by shop/api")
    ]
    assert plan.steps == ()


def test_teardown_destroys_dependents_first():
    plan = decide_teardown(None, deployed(score("api", DB_AND_JOBS)))

    assert steps(plan) == [("destroy", JOBS, ()), ("destroy", DB, (JOBS,))]


def test_resource_that_another_application_depends_on_is_not_destroyed():
    snapshot = deployed(score("api", DB_AND_JOBS))
    snapshot = replace(
        snapshot, dependencies={**snapshot.dependencies, ("private/x", DB): "output"}
    )

    plan = decide_teardown(None, snapshot)

    assert actions(plan) == {JOBS: "destroy", DB: "release"}


def test_protected_and_retained_resources_are_not_destroyed():
    snapshot = deployed(score("api", DB_AND_JOBS))
    resources = dict(snapshot.resources)
    resources[JOBS] = replace(resources[JOBS], protected=True)

    plan = decide_teardown(None, replace(snapshot, resources=resources))

    assert {each.key: each.reason for each in plan.resources} == {
        DB: f"still needed by {JOBS}",
        JOBS: "it is protected",
    }


def test_teardown_of_an_unknown_workload_is_refused():
    with pytest.raises(PlanError) as refused:
        decide_teardown(["apo"], deployed(score("api", DB_AND_JOBS)))

    assert [(each.message, each.hint) for each in refused.value.problems] == [
        ("The application shop has no workload 'apo' in dev.", "did you mean `api`?")
    ]


def test_template_of_an_existing_resource_stays_until_an_upgrade():
    text = score("api", DB_AND_JOBS)
    snapshot = deployed(text)
    newer = make_snapshot(
        make_version("database", version_id=7, version="2.0.0"), make_version("queue")
    )
    snapshot = replace(snapshot, templates=newer.templates, rules=newer.rules)

    stays = decide(workloads(text), snapshot)
    moves = decide(workloads(text), snapshot, upgrade=True)

    assert actions(stays) == {DB: "unchanged", JOBS: "unchanged"}
    assert moves.resources[0].changes == (Change("template version", "1.0.0", "2.0.0"),)


def test_conflicting_params_name_both_applications_and_both_values():
    snapshot = replace(deployed(score("api", SHARED)), application="mail")

    assert refusal(score("web", SHARED.replace("3", "4")), snapshot) == [
        (
            11,
            (
                "shared/common cannot serve everybody: the parameter `size` is 4 for workload web of "
                "application mail and 3 for workload api of application shop; the rule is equal."
            ),
            (
                "ask for the same value, name no params to take what there is, or use another name "
                "for a resource of your own"
            ),
        )
    ]


def test_shared_name_of_another_type_is_refused():
    snapshot = replace(deployed(score("api", SHARED)), application="mail")
    text = score("web", SHARED.replace("type: database", "type: queue"))

    assert refusal(text, snapshot)[0][1] == (
        "`common` of workload web of application mail asks for queue.default, but shared/common is "
        "database.default, made by application shop."
    )


def test_existing_resource_is_bound_by_its_id():
    snapshot = replace(deployed(score("api", DB_AND_JOBS)), application="mail")
    text = score("web", f"mine:\n  type: database\n  reference: {{mode: existing, id: {UUID}}}")
    resources = dict(snapshot.resources)
    resources[DB] = replace(resources[DB], id=UUID)

    plan = decide(workloads(text), replace(snapshot, resources=resources))

    assert actions(plan) == {DB: "reuse"}


UUID = "5a0e4c2a-6a0e-4c8e-9a4f-0d8f7b8f2f10"


def test_unknown_existing_id_is_refused():
    text = score("web", f"mine:\n  type: database\n  reference: {{mode: existing, id: {UUID}}}")

    assert refusal(text)[0][1] == f"There is no resource {UUID} in the environment dev."


@pytest.mark.parametrize(
    ("resources", "variables", "line", "message", "hint"),
    [
        (
            "db:\n  type: databas",
            "",
            9,
            "No template serves `databas.default` for `db`.",
            "did you mean `database`?",
        ),
        (
            "db:\n  type: database\n  params: {sise: 3}",
            "",
            10,
            "`sise` is not a parameter of the template database 1.0.0.",
            "did you mean `size`?",
        ),
        (
            "db:\n  type: database\n  params: {size: big}",
            "",
            10,
            '"big" is not accepted by the template database 1.0.0: the type must be integer.',
            "",
        ),
        (
            "db:\n  type: database",
            "H: ${resources.db.hostt}",
            8,
            (
                "`db` has no output `hostt`: the template database 1.0.0 that serves it does not "
                "declare it."
            ),
            "did you mean `host`?",
        ),
        (
            "db:\n  type: database\njobs:\n  type: queue\n  params: {from: '${resources.db.x}'}",
            "",
            12,
            (
                "`db` has no output `x`: the template database 1.0.0 that serves it does not declare "
                "it."
            ),
            "it has host, password",
        ),
    ],
)
def test_mistake_is_refused_with_its_line_and_a_remedy(resources, variables, line, message, hint):
    assert refusal(score("api", resources, variables)) == [(line, message, hint)]


def test_metadata_that_is_not_there_is_refused_wherever_it_is_used():
    resources = "db:\n  type: database\n  params:\n    from: ${metadata.name}-${metadata.nmae}"

    assert [
        (line, message)
        for line, message, _ in refusal(score("api", resources, "A: ${metadata.tier}"))
    ] == [
        (8, "The placeholder ${metadata.tier} has no value: there is no `tier`."),
        (13, "The placeholder ${metadata.nmae} has no value: there is no `nmae`."),
    ]


def test_missing_required_param_is_refused():
    snapshot = make_snapshot(make_version("database", required=["size"]))

    assert refusal(score("api", "db:\n  type: database"), snapshot)[0][1] == (
        "The parameter `size` is missing: the template database 1.0.0 requires it."
    )


def test_placeholder_may_stand_where_a_number_is_wanted():
    text = DB_AND_JOBS.replace(
        'from: "amqp://${resources.db.host}"', "size: '${resources.db.host}'"
    )

    plan = decide(workloads(score("api", text)), make_snapshot())

    assert actions(plan) == {DB: "create", JOBS: "create"}


def test_secret_written_as_text_is_refused():
    version = make_version("database", params={"token": {"type": "string", "writeOnly": True}})

    assert refusal(
        score("api", "db:\n  type: database\n  params: {token: abc}"), make_snapshot(version)
    ) == [
        (
            10,
            "`token` is a secret of the template database 1.0.0 and must not stand in a file.",
            (
                "take it from another resource's output: ${resources.….…}, or from the worker: "
                "{secretref: env:…}"
            ),
        )
    ]


def test_secret_of_a_wrong_type_is_not_shown():
    version = make_version("database", params={"pin": {"type": "integer", "writeOnly": True}})
    text = score("api", "db:\n  type: database\n  params: {pin: hunter2}")

    assert [message for _, message, _ in refusal(text, make_snapshot(version))] == [
        "`pin` is a secret of the template database 1.0.0 and must not stand in a file."
    ]


def test_value_that_may_be_null_is_told_what_it_must_be():
    rule = {"type": "object", "properties": {"days": {"anyOf": [{"type": "integer"}, NULL]}}}
    version = make_version("database", params={"backup": {"anyOf": [rule, NULL]}})
    # The placeholder beside it does not excuse the wrong value.
    backup = "{days: some, to: '${resources.db.host}'}"
    text = score("api", f"other:\n  type: database\n  params: {{backup: {backup}}}\n{DB_ALONE}")

    assert refusal(text, make_snapshot(version))[0][1] == (
        '"some" is not accepted by the template database 1.0.0: the type must be integer.'
    )


NULL = {"type": "null"}
DB_ALONE = "db:\n  type: database"


def test_tool_that_no_worker_has_is_named():
    snapshot = make_snapshot(missing_tools={"fake": "terraform"})

    assert refusal(score("api", "db:\n  type: database"), snapshot)[0][1] == (
        "The template database needs terraform, which is installed on no worker of the "
        "environment dev."
    )


def test_teardown_that_no_worker_can_do_is_refused():
    snapshot = replace(deployed(score("api", DB_AND_JOBS)), missing_tools={"fake": "terraform"})

    with pytest.raises(PlanError) as refused:
        decide_teardown(None, snapshot)

    assert [each.message for each in refused.value.problems] == [
        (
            "database.default#api.db cannot be destroyed: the template database needs terraform, which "
            "is installed on no worker of the environment dev."
        ),
        (
            "queue.default#api.jobs cannot be destroyed: the template queue needs terraform, which is "
            "installed on no worker of the environment dev."
        ),
    ]


def test_what_needs_no_work_needs_no_tool():
    text = score("api", DB_AND_JOBS)
    snapshot = replace(deployed(text), missing_tools={"fake": "terraform"})

    assert decide(workloads(text), snapshot).changes_nothing


def test_most_specific_rule_wins_and_every_candidate_is_explained():
    plain, special = make_version("plain"), make_version("special", version_id=2)
    rules = [
        RuleFacts(1, "database"),
        RuleFacts(2, "database", environment="dev"),
        RuleFacts(1, "database", environment="live"),
    ]

    plan = decide(
        workloads(score("api", "db:\n  type: database")), make_snapshot(plain, special, rules=rules)
    )

    assert plan.resources[0].template.name == "special"
    assert [(each.rule, each.chosen, each.reason) for each in plan.resources[0].candidates] == [
        ("type database, environment live", False, "wants environment 'live', here it is 'dev'"),
        ("type database, environment dev", True, "the most specific that matches"),
        (
            "type database",
            False,
            "the rule for type database, environment dev is more specific",
        ),
    ]


def test_driver_that_looks_at_the_workloads_is_updated_when_their_ports_change():
    snapshot = make_snapshot(make_version("service", uses=("workloads",)))
    front = score("front", "back:\n  type: service")
    snapshot = deployed(front, snapshot=snapshot)
    back = "service:\n  ports:\n    web:\n      port: 80\n"

    plan = decide(workloads(score("back") + back), snapshot)

    assert actions(plan) == {"private/shop/front/back/service.default": "update"}


def test_cycle_between_files_names_its_members():
    one = "aa:\n  type: queue\n  id: aa\n  params: {from: '${resources.bb.host}'}\nbb:\n  type: queue\n  id: bb"
    two = "aa:\n  type: queue\n  id: aa\nbb:\n  type: queue\n  id: bb\n  params: {from: '${resources.aa.host}'}"

    with pytest.raises(PlanError) as refused:
        decide(workloads(score("api", one), score("web", two)), make_snapshot())

    assert str(refused.value) == (
        "0.yaml:11:20: These need one another: app/shop/queue.default#aa → "
        "app/shop/queue.default#bb → app/shop/queue.default#aa. The references are at "
        "0.yaml:11; 1.yaml:14."
    )
