from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from provisioning.score.document import parse
from provisioning.score.workload import Binding, Matching, Problem, ResourceDeclaration

EXISTING = "0B9A5B0C-6B1D-4F39-9D57-3F6B6A1C2D3E"


def read(resource: dict[str, Any]) -> tuple[list[ResourceDeclaration], list[Problem]]:
    document = {
        "apiVersion": "score.dev/v1b1",
        "metadata": {"name": "shop"},
        "containers": {"main": {"image": "busybox"}},
        "resources": {"db": {"type": "postgres", **resource}, "net": {"type": "network"}},
    }
    workloads, problems = parse(yaml.safe_dump(document, sort_keys=False))
    return [workload.resources["db"] for workload in workloads], problems


def annotated(keys: dict[str, Any]) -> dict[str, Any]:
    own = {key: keys[key] for key in keys if key not in ("id", "params")}
    texts = {
        f"conductor.dev/{key}": value if isinstance(value, str) else json.dumps(value)
        for key, value in own.items()
    }
    rest = {key: keys[key] for key in keys if key not in own}
    return {**rest, "metadata": {"annotations": {"example.org/kept": "yes", **texts}}}


BINDINGS: list[tuple[dict[str, Any], Binding]] = [
    ({}, Binding("private")),
    ({"id": "main"}, Binding("application", name="main")),
    ({"reference": {"mode": "dedicated"}}, Binding("private")),
    ({"reference": {"mode": "dedicated"}, "id": "main"}, Binding("application", name="main")),
    ({"reference": {"mode": "shared", "name": "team-db"}}, Binding("shared", name="team-db")),
    (
        {"reference": {"mode": "existing", "id": EXISTING}},
        Binding("existing", resource_id=EXISTING.lower()),
    ),
    ({"sharing": "dedicated"}, Binding("private")),
    ({"sharing": "shared"}, Binding("match", matching=Matching())),
    ({"sharing": "shared-by-params"}, Binding("match", matching=Matching())),
    ({"sharing": "shared-always"}, Binding("match", matching=Matching(match_on=()))),
    ({"sharing": "shared-by-name"}, Binding("shared", name="db")),
    ({"sharing": "shared-by-name", "id": "main"}, Binding("shared", name="main")),
    (
        {"sharing": "shared-by-name", "reference": {"name": "team-db"}, "id": "main"},
        Binding("shared", name="team-db"),
    ),
    ({"sharing": "shared", "matching": {}}, Binding("match", matching=Matching())),
    ({"matching": {"sharingPolicy": "dedicated"}}, Binding("private")),
    (
        {
            "matching": {
                "scope": "organisation",
                "sharingPolicy": "conditional",
                "matchOn": ["tier", "size"],
                "maxConsumers": 5,
            },
            "params": {"tier": "a", "size": 1},
        },
        Binding("match", matching=Matching("organisation", "conditional", ("size", "tier"), 5)),
    ),
    ({"pool": "warm"}, Binding("private", pool="warm")),
]


@pytest.mark.parametrize(("keys", "binding"), BINDINGS)
def test_keys_are_normalised_to_one_binding(keys: dict[str, Any], binding: Binding) -> None:
    assert [each.binding for each in read(keys)[0]] == [binding]


@pytest.mark.parametrize(("keys", "binding"), BINDINGS)
def test_annotations_mean_what_the_keys_mean(keys: dict[str, Any], binding: Binding) -> None:
    [declaration] = read(annotated(keys))[0]

    assert declaration.binding == binding
    assert declaration.metadata == {"annotations": {"example.org/kept": "yes"}}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"sharing": "dedicated", "reference": {"mode": "shared", "name": "x"}},
            "`reference` and `sharing` disagree: shared by name or one's own?",
        ),
        (
            {"sharing": "shared-always", "matching": {"scope": "environment"}},
            (
                "`sharing` and `matching` disagree: matched on nothing in scope environment or matched "
                "on all params in scope environment?"
            ),
        ),
        ({"pool": "warm", "sharing": "shared"}, "`pool` and `sharing` disagree"),
        ({"reference": {"mode": "shared"}}, "`reference` of mode shared has no `name`."),
        ({"reference": {"mode": "existing"}}, "`reference` of mode existing has no `id`."),
        ({"reference": {"name": "x"}}, "`reference` does not say its `mode`."),
        (
            {"reference": {"mode": "dedicated", "name": "x"}},
            "`reference.name` has no meaning with `mode: dedicated`.",
        ),
    ],
)
def test_keys_that_disagree_are_refused(keys: dict[str, Any], message: str) -> None:
    declarations, [problem] = read(keys)

    assert declarations == []
    assert problem.message.startswith(message)
    assert problem.path.startswith("resources.db.")


def test_a_key_and_its_annotation_must_say_the_same() -> None:
    keys = {"pool": "warm", **annotated({"pool": "cold"})}

    [problem] = read(keys)[1]

    assert problem.path == r"resources.db.metadata.annotations.conductor\.dev/pool"
    assert problem.message == (
        'The annotation `conductor.dev/pool` says "cold", the key `pool` of `db` says "warm".'
    )


@pytest.mark.parametrize(
    ("keys", "path", "hint"),
    [
        ({"dependOn": "net"}, "resources.db.dependOn", "did you mean `dependsOn`?"),
        ({"sharring": "shared"}, "resources.db.sharring", "did you mean `sharing`?"),
        ({"sharing": "shard"}, "resources.db.sharing", "did you mean `shared`?"),
        ({"dependsOn": ["nett"]}, "resources.db.dependsOn.0", "did you mean `net`?"),
        (
            {"matching": {"matchon": ["a"]}},
            "resources.db.matching.matchon",
            "did you mean `matchOn`?",
        ),
        (
            {"matching": {"matchOn": ["teir"]}, "params": {"tier": 1}},
            "resources.db.matching",
            "did you mean `tier`?",
        ),
        (
            {"metadata": {"annotations": {"conductor.dev/sharin": "shared"}}},
            r"resources.db.metadata.annotations.conductor\.dev/sharin",
            "did you mean `conductor.dev/sharing`?",
        ),
    ],
)
def test_a_misspelt_key_gets_a_remedy(keys: dict[str, Any], path: str, hint: str) -> None:
    [problem] = read(keys)[1]

    assert (problem.path, problem.hint) == (path, hint)


@pytest.mark.parametrize(
    "keys",
    [
        {"priority": "high"},
        {"pool": "Warm Pool"},
        {"matching": {"maxConsumers": 0}},
        {"reference": {"mode": "existing", "id": "7"}},
        {"dependsOn": [5]},
    ],
)
def test_a_key_with_a_wrong_value_is_refused(keys: dict[str, Any]) -> None:
    declarations, problems = read(keys)

    assert declarations == []
    assert len(problems) == 1
    assert problems[0].path.startswith(f"resources.db.{next(iter(keys))}")


@pytest.mark.parametrize("value", ["net", ["net"], [{"resource": "net"}], {"resource": "net"}])
def test_depends_on_takes_an_alias_or_a_list(value: Any) -> None:
    [declaration] = read({"dependsOn": value})[0]

    assert (declaration.depends_on, declaration.weak_depends_on) == (("net",), ())


def test_a_weak_dependency_is_told_apart() -> None:
    [declaration] = read({"dependsOn": [{"resource": "net", "type": "weak"}], "priority": 7})[0]

    assert (declaration.depends_on, declaration.weak_depends_on) == (("net",), ("net",))
    assert declaration.priority == 7
