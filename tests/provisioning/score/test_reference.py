from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from provisioning.planning.application import order_application
from provisioning.score.application import uses_of
from provisioning.score.binding import take_own_keys
from provisioning.score.document import build_workload, parse_application, read_documents
from provisioning.score.placeholders import (
    PlaceholderError,
    Reference,
    as_text,
    look_up,
    substitute,
)
from provisioning.score.reader import RawDocument
from provisioning.score.rendering import render
from provisioning.score.schema.validation import findings
from provisioning.score.semantics import check
from provisioning.score.upgrade import upgrade
from provisioning.score.workload import Mark, ScoreError, Workload, resource_uid

REFERENCE = Path(__file__).parents[2] / "scores" / "reference"
Case = dict[str, Any]


def load(path: str) -> Any:
    return json.loads((REFERENCE / path).read_text(encoding="utf-8"))


def named(cases: list[Case], key: str) -> list[Any]:
    return [pytest.param(case, id=str(case[key])) for case in cases]


def raw(document: Any) -> RawDocument:
    return RawDocument(document, Mark(1, 1, 1, 1))


def workload_from(document: Case) -> Workload:
    """Build the workload of a case that leaves out what every whole file has."""
    whole = {"containers": {}, **document}
    _, own = take_own_keys(raw(whole))
    return build_workload(raw(whole), own, "score.yaml")


def pointer(parts: tuple[Any, ...]) -> str:
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in parts)


@pytest.mark.parametrize("case", named(load("cases/schema-cases.json"), "name"))
def test_the_schema_gives_the_recorded_verdict(case: Case) -> None:
    found = findings(case["document"], "score-v1b1.json")

    assert (not found) == case["valid"]
    if case["error_contains"] and case["error_contains"].startswith("/"):
        assert any(pointer(each.parts).startswith(case["error_contains"]) for each in found)


@pytest.mark.parametrize("case", named(load("cases/validate-cases.json"), "name"))
def test_the_semantic_checks_give_the_recorded_verdict(case: Case) -> None:
    document = raw(case["workload"])
    plain, own = take_own_keys(document)

    messages = [finding.message for finding in check(plain, own)]

    assert (not messages) == case["valid"]
    for expected in case["error_contains"]:
        assert any(expected in message for message in messages)


def reference_outputs(reference: Reference) -> Any:
    """Answer as the context of the recorded cases describes."""
    context = load("cases/substitution-cases.json")["context"]
    if not reference.alias:
        return look_up(context["metadata"], reference.keys, reference)
    if reference.alias not in context["resources"]:
        raise PlaceholderError(f"There is no {reference.alias}.")
    if not reference.keys:
        return reference.alias
    if reference.alias == "env":
        return "${" + reference.keys[0] + "}"
    if reference.alias == "db":
        return "${DB_" + "_".join(reference.keys).upper() + "?required}"
    return look_up({"x": "a"}, reference.keys, reference)


SUBSTITUTIONS = load("cases/substitution-cases.json")


@pytest.mark.parametrize(
    "case",
    [
        *named(
            [
                {**case, "input": "${" + case["input"] + "}"}
                for case in SUBSTITUTIONS["reference_cases"]
            ],
            "input",
        ),
        *named(SUBSTITUTIONS["string_cases"], "input"),
        *named(SUBSTITUTIONS["tree_cases"], "input"),
    ],
)
def test_substitution_gives_the_recorded_value(case: Case) -> None:
    if case["error"]:
        with pytest.raises(PlaceholderError):
            substitute(case["input"], reference_outputs)
    else:
        assert substitute(case["input"], reference_outputs) == case["expected"]


@pytest.mark.parametrize("case", named(load("cases/state-cases.json")["uid_cases"], "uid"))
def test_a_resource_has_the_recorded_uid(case: Case) -> None:
    args = case["args"]

    uid = resource_uid(args["workload"], args["name"], args["type"], args["class"], args["id"])

    assert uid == case["uid"]


@pytest.mark.parametrize("case", named(load("cases/state-cases.json")["priming_cases"], "name"))
def test_workloads_together_have_the_recorded_resources(case: Case) -> None:
    workloads = [workload_from(document) for document in case["workloads"]]

    if case["error"]:
        with pytest.raises(ScoreError, match="is declared with different"):
            order_application(workloads)
        return
    application, _ = order_application(workloads)

    assert sorted(application.resources) == sorted(case["uids"])
    for key in ("params", "metadata"):
        for uid, value in case.get(key, {}).items():
            assert getattr(application.resources[uid], key) == value


@pytest.mark.parametrize(
    "case", named(load("cases/state-cases.json")["ordering_cases_workload_named_eg"], "name")
)
def test_resources_come_in_the_recorded_order(case: Case) -> None:
    workload = workload_from({"metadata": {"name": "eg"}, "resources": case["resources"]})

    if case["error"]:
        with pytest.raises(ScoreError, match="need one another"):
            order_application([workload])
    else:
        assert order_application([workload])[1] == case["order"]


def test_the_recorded_upgrade_is_made() -> None:
    case = load("cases/misc-cases.json")["upgrade_transform"]
    document = raw(case["input"])

    changes = upgrade(document)

    container = document.value["containers"]["hello"]
    assert len(changes) == case["changes"]
    assert container["files"] == case["expected_files"]
    assert container["volumes"] == case["expected_volumes"]
    assert findings(document.value, "score-v1b1.json") == []


@pytest.mark.parametrize(
    "case", load("cases/misc-cases.json")["resource_limits"], ids=lambda case: json.dumps(case)
)
def test_compute_limits_have_the_recorded_verdict(case: Case) -> None:
    limits = {key: case[key] for key in ("cpu", "memory") if case.get(key) is not None}
    document = {
        "apiVersion": "score.dev/v1b1",
        "metadata": {"name": "eg"},
        "containers": {"main": {"image": "busybox", "resources": {"limits": limits}}},
    }

    assert bool(findings(document, "score-v1b1.json")) == ("error" in case)


def text_of(file: str) -> str:
    return (REFERENCE / file).read_text(encoding="utf-8")


def substituted(workloads: list[Workload]) -> dict[str, Any]:
    """Render with the outputs of the recording, which were `<uid|key>` for whatever was asked."""
    outputs: dict[str, dict[str, str]] = defaultdict(dict)
    for workload in workloads:
        for use in uses_of(workload):
            if use.reference.alias:
                uid, key = workload.resources[use.reference.alias].uid, ".".join(use.reference.keys)
                outputs[uid][key] = f"<{uid}|{key}>"
    rendered = {workload.name: render(workload, outputs) for workload in workloads}
    return dict(flatten(rendered))


def flatten(rendered: dict[str, Any]) -> Any:
    for name, workload in rendered.items():
        for container, parts in workload["containers"].items():
            place = f"{name}/containers/{container}"
            for key, value in parts.get("variables", {}).items():
                yield f"{place}/variables/{key}", value
            for target, file in parts.get("files", {}).items():
                yield f"{place}/files/{target}", file.get("content")
            for target, volume in parts.get("volumes", {}).items():
                yield f"{place}/volumes/{target}", volume["source"]
        for alias, resource in workload["resources"].items():
            yield f"{name}/resources/{alias}/params", as_text(resource["params"])


@pytest.mark.parametrize("case", named(load("expected-per-file.json"), "file"))
def test_a_real_file_is_read_as_recorded(case: Case) -> None:
    documents = read_documents(text_of(case["file"]), file=case["file"])

    is_valid = case["schema_valid"] and not case["validate_errors"]
    assert all(not document.problems for document in documents) == is_valid
    assert len(documents) == case["documents"]
    if "resources" in case:
        uids = {uid for document in documents for uid in document.uids.values()}
        assert uids == set(case["resources"])
    assert len([each for one in documents for each in one.changes]) == len(case["transforms"])
    workloads = [each.workload for each in documents if each.workload is not None]
    if is_valid:
        assert order_application(workloads)[1] == case.get("order", [])
        values = substituted(workloads)
        for place, value in case.get("substituted", {}).items():
            assert values[place] == value


@pytest.mark.parametrize("case", named(load("expected-multi-workload.json"), "id"))
def test_files_of_one_application_are_read_as_recorded(case: Case) -> None:
    workloads = parse_application([(file, text_of(file)) for file in case["files"]])
    application, order = order_application(workloads)

    assert len(workloads) == case["workloads"]
    assert order == case.get("order", [])
    for uid, resource in case.get("resources", {}).items():
        assert application.resources[uid].params == resource["params"]
        assert application.resources[uid].metadata == resource["metadata"]
        assert (application.resources[uid].type, application.resources[uid].class_) == (
            resource["type"],
            resource["class"],
        )
    values = substituted(workloads)
    for place, value in case.get("substituted", {}).items():
        assert values[place] == value


DEFECTS = {case["id"]: case for case in load("cases/anchor-defects.json")["cases"]}


def defect(case: str, key: str = "workloads") -> list[Workload]:
    return parse_application(
        [
            (f"{document['metadata']['name']}.yaml", yaml.safe_dump(document, sort_keys=False))
            for document in DEFECTS[case][key]
        ]
    )


def test_a_shared_resource_comes_once_and_after_all_it_needs() -> None:
    _, order = order_application(defect("duplicate-order-entry"))

    assert order == ["postgres.default#bb.zdb", "cache.default#shared"]


def test_equal_text_that_means_two_resources_is_a_conflict() -> None:
    with pytest.raises(ScoreError) as refused:
        order_application(defect("nondeterministic-shared-order"))

    [problem] = refused.value.problems
    assert (problem.file, problem.line, problem.path) == ("bb.yaml", 18, "resources.store.params.h")
    assert problem.message == (
        'cache.default#shared is declared with different params: `h` is "${resources.db.host}" of '
        "postgres.default#aa.db in workload `aa` (aa.yaml:14) and "
        '"${resources.db.host}" of postgres.default#bb.db in workload `bb` (bb.yaml:18).'
    )


def test_an_id_that_spells_a_private_resource_is_refused_by_name() -> None:
    with pytest.raises(ScoreError) as refused:
        defect("private-id-hijack")

    [problem] = refused.value.problems
    assert (problem.file, problem.line, problem.path) == ("bb.yaml", 10, "resources.mine.id")
    assert problem.message == (
        "The id `aa.db` of `mine` in workload `bb` spells the private resource `db` of workload "
        "`aa` (aa.yaml:8)."
    )


def test_a_removed_resource_is_no_longer_in_the_application() -> None:
    first = order_application(defect("removed-resource-lives-forever", "workloads_first"))
    second = order_application(defect("removed-resource-lives-forever", "workloads_second"))

    assert (first[1], second[1]) == (["postgres.default#aa.db"], [])


def test_every_use_of_an_output_is_known_before_anything_is_provisioned() -> None:
    [workload] = defect("unknown-output-late")
    [use] = uses_of(workload)

    assert (use.reference.alias, use.reference.keys) == ("db", ("hostt",))
    assert (use.line, use.column, use.path) == (8, 10, "containers.main.variables.H")


def test_an_escaped_dot_is_valid_and_substituted() -> None:
    [workload] = defect("escaped-dot-rejected-by-validate")

    assert render(workload, {})["containers"]["main"]["variables"] == {"H": "thing"}


def test_a_cycle_is_told_as_a_path_with_the_line_of_each_reference() -> None:
    with pytest.raises(ScoreError) as refused:
        order_application(defect("cycle-message"))

    [problem] = refused.value.problems
    assert problem.message == (
        "These resources need one another, so none can be first: thing.default#aa.one → "
        "thing.default#aa.two → thing.default#aa.one. The references are `${resources.two.o}` in "
        "aa.yaml:11, `${resources.one.o}` in aa.yaml:15."
    )
