from __future__ import annotations

import pytest

from provisioning.score.application import bind_application, uses_of
from provisioning.score.document import parse_application
from provisioning.score.workload import ScoreError, Workload


def workloads(**resources: str) -> list[Workload]:
    """Read one workload for each name, with these resources in flow style."""
    return parse_application(
        [
            (
                f"{name}.yaml",
                (
                    f"apiVersion: score.dev/v1b1\nmetadata: {{name: {name}}}\n"
                    f"containers: {{main: {{image: x}}}}\nresources:\n  {text}\n"
                ),
            )
            for name, text in resources.items()
        ]
    )


def messages(**resources: str) -> list[str]:
    with pytest.raises(ScoreError) as refused:
        bind_application(workloads(**resources))
    return [problem.message for problem in refused.value.problems]


def test_different_params_name_both_workloads_the_param_both_values_and_lines() -> None:
    found = messages(
        one="db: {type: postgres, id: main, params: {size: 1, zone: a}}",
        two="store: {type: postgres, id: main, params: {size: 2, zone: a}}",
    )

    assert found == [
        (
            "postgres.default#main is declared with different params: `size` is 1 in workload `one` "
            "(one.yaml:5) and 2 in workload `two` (two.yaml:5)."
        )
    ]


def test_a_param_that_only_one_gives_is_a_difference() -> None:
    found = messages(
        one="db: {type: postgres, id: main, params: {}}",
        two="db: {type: postgres, id: main, params: {size: 2}}",
    )

    assert "`size` is not given in workload `one` (one.yaml:5) and 2 in" in found[0]


def test_one_and_true_are_different() -> None:
    assert messages(
        one="db: {type: postgres, id: main, params: {size: 1}}",
        two="db: {type: postgres, id: main, params: {size: true}}",
    )


def test_declarations_without_params_agree_with_any() -> None:
    application = bind_application(
        workloads(
            one="db: {type: postgres, id: main}",
            two="db: {type: postgres, id: main, params: {size: 2}, metadata: {owner: x}}",
        )
    )

    [resource] = application.resources.values()
    assert (resource.params, resource.metadata) == ({"size": 2}, {"owner": "x"})
    assert resource.declared_by == (("one", "db"), ("two", "db"))


def test_different_text_that_means_one_resource_agrees() -> None:
    application = bind_application(
        workloads(
            one="{net: {type: network, id: n1}, db: {type: pg, id: main, params: {n: '${net.x}'}}}",
            two="{other: {type: network, id: n1}, "
            "db: {type: pg, id: main, params: {n: '${resources.other.x}'}}}",
        )
    )

    assert application.edges == (("pg.default#main", "network.default#n1"),)


def test_metadata_of_two_workloads_is_a_difference() -> None:
    params = "db: {type: pg, id: main, params: {n: '${metadata.name}'}}"

    assert len(messages(one=params, two=params)) == 1


def test_different_metadata_and_bindings_are_refused() -> None:
    found = messages(
        one="db: {type: pg, id: main, metadata: {a: x}}",
        two="db: {type: pg, id: main, metadata: {a: y}, sharing: shared}",
    )

    assert found == [
        (
            'pg.default#main is declared with different metadata: `a` is "x" in workload `one` '
            '(one.yaml:5) and "y" in workload `two` (two.yaml:5).'
        ),
        (
            "pg.default#main is bound differently: as application in workload `one` (one.yaml:5), as "
            "match in workload `two`."
        ),
    ]


def test_metadata_of_conductor_alone_agrees_with_any() -> None:
    application = bind_application(
        workloads(
            one="db: {type: pg, id: main, metadata: {annotations: {conductor.dev/priority: '1'}}}",
            two="db: {type: pg, id: main, metadata: {owner: x}}",
        )
    )

    assert application.resources["pg.default#main"].metadata == {"owner": "x"}


def test_an_id_may_spell_a_name_that_nobody_has() -> None:
    application = bind_application(
        workloads(one="db: {type: pg}", two="db: {type: redis, id: one.db}")
    )

    assert list(application.resources) == ["pg.default#one.db", "redis.default#one.db"]


def test_depends_on_makes_an_edge_with_its_place() -> None:
    [workload] = workloads(one="{db: {type: pg, dependsOn: net}, net: {type: network}}")

    application = bind_application([workload])

    [use] = application.uses["pg.default#one.db", "network.default#one.net"]
    assert (use.line, use.column, use.text) == (5, 30, "dependsOn: net")
    assert list(uses_of(workload)) == [use]


def test_the_application_does_not_depend_on_the_order_of_its_files() -> None:
    read = workloads(
        one="{db: {type: pg, id: main}, net: {type: network, params: {a: '${db.x}'}}}",
        two="db: {type: pg, id: main, params: {size: 1}}",
    )

    assert bind_application(read) == bind_application(read[::-1])
