from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import call_command, execute_from_command_line

# No test here may touch the database: pytest-django refuses it.

WHOLE = """apiVersion: score.dev/v1b1
metadata:
  name: shop
containers:
  main:
    image: busybox
    variables:
      URL: postgres://${resources.db.host}/$${db}
    files:
      /etc/raw: {content: "${nothing}", noExpand: true}
    volumes:
      /data: {source: "${resources.data}"}
resources:
  data: {type: volume}
  db: {type: postgres, params: {network: "${net.id}", sizes: [1, "${metadata.name}"]}}
  net: {type: network, id: main-net}
"""
INVALID = WHOLE.replace("busybox", "busybox\n    imagee: x")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, with a valid and an invalid Score file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop.yaml").write_text(WHOLE)
    (tmp_path / "bad.yaml").write_text(INVALID)
    return tmp_path


def run(*arguments: str) -> tuple[int, str, str]:
    """Run `manage.py score …` as a shell does; return exit status, stdout and stderr."""
    stdout, stderr, status = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        patch.setattr(sys, "stderr", stderr)
        try:
            execute_from_command_line(["manage.py", "score", *arguments])
        except SystemExit as exit_:
            status = int(exit_.code or 0)
    return status, stdout.getvalue(), stderr.getvalue()


def run_json(*arguments: str) -> Any:
    return json.loads(run(*arguments)[1])


def test_lint_says_that_a_valid_file_is(folder: Path) -> None:
    assert run("lint", "shop.yaml") == (
        0,
        "shop.yaml: shop is valid, 3 resources.\nno problems in 1 document.\n",
        "",
    )


def test_lint_prints_places_and_remedies_and_fails(folder: Path) -> None:
    assert run("lint", "bad.yaml") == (
        1,
        (
            "bad.yaml:7:5: `imagee` is not a key of `containers.main`.\n"
            "    did you mean `image`?\n"
            "1 problem in 1 document.\n"
        ),
        "",
    )


def test_lint_prints_one_json_object_for_each_document(folder: Path) -> None:
    (folder / "two.yaml").write_text(f"{INVALID}---\n- 1\n")

    assert run_json("lint", "two.yaml", "--format", "json") == [
        {
            "file": "two.yaml",
            "workload": "shop",
            "valid": False,
            "problems": [
                {
                    "line": 7,
                    "column": 5,
                    "path": "containers.main.imagee",
                    "message": "`imagee` is not a key of `containers.main`.",
                    "hint": "did you mean `image`?",
                }
            ],
            "resources": [
                {"alias": "data", "uid": "volume.default#shop.data"},
                {"alias": "db", "uid": "postgres.default#shop.db"},
                {"alias": "net", "uid": "network.default#main-net"},
            ],
        },
        {
            "file": "two.yaml",
            "workload": None,
            "valid": False,
            "problems": [
                {
                    "line": 19,
                    "column": 1,
                    "path": "",
                    "message": "A Score file is a map, not [1].",
                    "hint": "start with `apiVersion: score.dev/v1b1`",
                }
            ],
            "resources": [],
        },
    ]


def test_lint_finds_what_is_wrong_between_files(folder: Path) -> None:
    (folder / "taker.yaml").write_text(
        WHOLE.replace("name: shop", "name: taker")
        .replace("main-net}", "main-net}")
        .replace("data: {type: volume}", "data: {type: volume, id: shop.data}")
    )

    shop, taker = run_json("lint", "shop.yaml", "taker.yaml", "--format", "json")

    assert (shop["valid"], taker["valid"]) == (True, False)
    assert [problem["path"] for problem in taker["problems"]] == ["resources.data.id"]


def test_lint_takes_files_of_equal_names_for_applications_of_their_own(folder: Path) -> None:
    (folder / "copy.yaml").write_text(WHOLE.replace("network: ", "other: "))

    assert run("lint", "shop.yaml", "copy.yaml")[0] == 0


def test_lint_reads_standard_input(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(WHOLE.encode())))

    assert run("lint", "-")[1].startswith("-: shop is valid")


def test_graph_prints_resources_edges_and_order(folder: Path) -> None:
    assert run_json("graph", "shop.yaml", "--format", "json") == {
        "resources": {
            "network.default#main-net": {
                "type": "network",
                "class": "default",
                "id": "main-net",
                "params": None,
                "workloads": ["shop"],
            },
            "postgres.default#shop.db": {
                "type": "postgres",
                "class": "default",
                "id": "shop.db",
                "params": {"network": "${net.id}", "sizes": [1, "${metadata.name}"]},
                "workloads": ["shop"],
            },
            "volume.default#shop.data": {
                "type": "volume",
                "class": "default",
                "id": "shop.data",
                "params": None,
                "workloads": ["shop"],
            },
        },
        "edges": [["postgres.default#shop.db", "network.default#main-net"]],
        "order": [
            "network.default#main-net",
            "volume.default#shop.data",
            "postgres.default#shop.db",
        ],
    }


def test_graph_prints_the_order_for_a_person(folder: Path) -> None:
    assert run("graph", "shop.yaml")[1] == (
        "  1  network.default#main-net  for shop.net\n"
        "  2  volume.default#shop.data  for shop.data\n"
        "  3  postgres.default#shop.db  for shop.db\n"
        "       needs network.default#main-net\n"
    )


@pytest.mark.parametrize(
    ("format_", "start", "edge"),
    [
        ("mermaid", "flowchart LR\n", "  n2 --> n0\n"),
        ("dot", "digraph {\n", '"postgres.default#shop.db" -> "network.default#main-net";\n'),
    ],
)
def test_graph_draws(folder: Path, format_: str, start: str, edge: str) -> None:
    status, drawing, _ = run("graph", "shop.yaml", "--format", format_)

    assert (status, drawing.startswith(start)) == (0, True)
    assert edge in drawing


def test_graph_of_invalid_files_prints_their_problems_and_nothing_else(folder: Path) -> None:
    status, stdout, stderr = run("graph", "bad.yaml", "--format", "json")

    assert (status, stdout) == (1, "")
    assert stderr == (
        "bad.yaml:7:5: `imagee` is not a key of `containers.main`. (did you mean `image`?)\n"
    )


def outputs(folder: Path, values: Any) -> str:
    (folder / "outputs.json").write_text(json.dumps(values))
    return "--outputs=outputs.json"


def test_render_substitutes_every_placeholder(folder: Path) -> None:
    given = {"postgres.default#shop.db": {"host": "h"}, "network.default#main-net": {"id": 7}}

    assert run_json("render", "shop.yaml", outputs(folder, given)) == {
        "shop": {
            "containers": {
                "main": {
                    "image": "busybox",
                    "variables": {"URL": "postgres://h/${db}"},
                    "files": {"/etc/raw": {"content": "${nothing}", "noExpand": True}},
                    "volumes": {"/data": {"source": "volume.default#shop.data"}},
                }
            },
            "resources": {
                "data": {"params": {}},
                "db": {"params": {"network": "7", "sizes": [1, "shop"]}},
                "net": {"params": {}},
            },
        }
    }


def test_render_names_every_output_that_is_missing(folder: Path) -> None:
    given = {"postgres.default#shop.db": {"hosts": "h"}}

    status, stdout, stderr = run("render", "shop.yaml", outputs(folder, given))

    assert (status, stdout) == (1, "")
    assert stderr == (
        "shop.yaml:8:12: The placeholder ${resources.db.host} has no value: there is no `host`. "
        "(there is hosts)\n"
        "shop.yaml:15:42: The placeholder ${net.id} has no value: there are no outputs of "
        "network.default#main-net.\n"
    )


def test_render_embeds_files_if_asked(folder: Path) -> None:
    (folder / "note.txt").write_text("for ${metadata.name}")
    (folder / "logo.bin").write_bytes(b"\xff\x00")
    (folder / "shop.yaml").write_text(
        "apiVersion: score.dev/v1b1\nmetadata: {name: shop}\ncontainers:\n  main:\n"
        "    image: x\n    files:\n      /note: {source: note.txt, mode: '644'}\n"
        "      /logo: {source: logo.bin}\n"
    )

    rendered = run_json("render", "shop.yaml", outputs(folder, {}), "--embed-files")

    assert rendered["shop"]["containers"]["main"]["files"] == {
        "/note": {"content": "for shop", "mode": "644"},
        "/logo": {"binaryContent": "/wA="},
    }
    (folder / "note.txt").unlink()
    assert run("render", "shop.yaml", outputs(folder, {}), "--embed-files") == (
        1,
        "",
        "The file note.txt of container `main` cannot be read: No such file or directory.\n",
    )


def test_lint_tells_every_cycle(folder: Path) -> None:
    (folder / "shop.yaml").write_text(
        "apiVersion: score.dev/v1b1\nmetadata: {name: shop}\ncontainers: {main: {image: x}}\n"
        "resources:\n"
        "  one: {type: cache, params: {from: '${one.host}'}}\n"
        "  two: {type: cache, params: {from: '${three.host}'}}\n"
        "  three: {type: cache, dependsOn: two}\n"
    )

    status, output, _ = run("lint", "shop.yaml", "--format", "json")
    [document] = json.loads(output)

    assert status == 1
    assert [
        (each["line"], each["message"].partition(": ")[2]) for each in document["problems"]
    ] == [
        (
            5,
            (
                "cache.default#shop.one → cache.default#shop.one. The references are `${one.host}` "
                "in shop.yaml:5."
            ),
        ),
        (
            7,
            (
                "cache.default#shop.three → cache.default#shop.two → cache.default#shop.three. The "
                "references are `dependsOn: two` in shop.yaml:7, `${three.host}` in shop.yaml:6."
            ),
        ),
    ]


def test_render_tells_a_reference_of_an_embedded_file_that_has_no_resource(folder: Path) -> None:
    (folder / "note.txt").write_text("${resources.nowhere.host}")
    (folder / "shop.yaml").write_text(
        "apiVersion: score.dev/v1b1\nmetadata: {name: shop}\ncontainers:\n  main:\n"
        "    image: x\n    files:\n      /note: {source: note.txt}\n"
    )

    assert run("render", "shop.yaml", outputs(folder, {}), "--embed-files") == (
        1,
        "",
        (
            "shop.yaml:7:14: The placeholder ${resources.nowhere.host} does not resolve to a resource: "
            'there is no resource with name "nowhere".\n'
        ),
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("lint", "nowhere.yaml"), "There is no file nowhere.yaml.\n"),
        (("lint", "."), "The file . cannot be read: Is a directory.\n"),
        (
            ("lint", "latin.yaml"),
            "The file latin.yaml is not UTF-8 text: see line 2. Save it as UTF-8.\n",
        ),
        (
            ("render", "shop.yaml", "--outputs", "bad.json"),
            "The file bad.json is not JSON: line 1: ",
        ),
        (("render", "shop.yaml", "--outputs", "list.json"), "The file list.json must hold {"),
        (("render", "shop.yaml"), "usage: "),
        (("lint",), "usage: "),
        ((), "usage: "),
    ],
)
def test_a_wrong_call_is_a_usage_error(
    folder: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    (folder / "latin.yaml").write_bytes(b"a: 1\nb: \xe9\n")
    (folder / "bad.json").write_text("{")
    (folder / "list.json").write_text("[1]")

    status, stdout, stderr = run(*arguments)

    assert (status, stdout) == (2, "")
    assert stderr.startswith(sentence)


def test_lint_can_be_called_from_python(folder: Path) -> None:
    with pytest.raises(SystemExit) as exit_:
        call_command("score", "lint", "bad.yaml", stdout=io.StringIO())

    assert exit_.value.code == 1
