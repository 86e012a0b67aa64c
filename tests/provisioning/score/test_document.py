from __future__ import annotations

import json
import pickle

import pytest

from provisioning.score.document import parse, parse_application, read_documents
from provisioning.score.workload import ScoreError

HEAD = "apiVersion: score.dev/v1b1\nmetadata:\n  name: shop\n"
WHOLE = HEAD + "containers:\n  main:\n    image: busybox\n"


def problems(text: str) -> list[tuple[int, int, str, str, str]]:
    return [(each.line, each.column, each.path, each.message, each.hint) for each in parse(text)[1]]


def test_a_valid_file_becomes_a_workload() -> None:
    text = WHOLE + (
        "service: {ports: {web: {port: 80}}}\n"
        "resources:\n  db:\n    type: postgres\n    class: large\n    params: {size: 5}\n"
    )

    [workload], found = parse(text, file="shop.yaml")

    assert found == []
    assert (workload.name, workload.file) == ("shop", "shop.yaml")
    assert workload.service == {"ports": {"web": {"port": 80}}}
    assert workload.resources["db"].uid == "postgres.large#shop.db"
    assert workload.resources["db"].params == {"size": 5}
    assert workload.position("resources.db.params.size") == (12, 20)
    assert workload.position("resources.db.params.nowhere") == (12, 13)


def test_a_workload_survives_pickling() -> None:
    [workload] = parse(WHOLE)[0]

    assert pickle.loads(pickle.dumps(workload)) == workload  # noqa: S301 -- our own bytes


def test_all_problems_of_a_file_are_told_at_once_and_in_order() -> None:
    text = (
        "apiVersion: score.dev/v1b2\n"
        "metadata:\n"
        "  name: Shop_One\n"
        "containers:\n"
        "  main:\n"
        "    imge: busybox\n"
        "    variables:\n"
        "      PORT: 80\n"
        "      HOST: ${resources.bd.host}\n"
        "resources:\n"
        "  db:\n"
        "    type: postgres\n"
        "    parms: {}\n"
    )

    assert [(line, column, path) for line, column, path, _, _ in problems(text)] == [
        (1, 13, "apiVersion"),
        (3, 9, "metadata.name"),
        (5, 3, "containers.main"),
        (6, 5, "containers.main.imge"),
        (8, 13, "containers.main.variables.PORT"),
        (9, 13, "containers.main.variables.HOST"),
        (13, 5, "resources.db.parms"),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            HEAD + "containers:\n  main:\n    image: busybox\n    variables: {PORT: 80}\n",
            (
                7,
                23,
                "containers.main.variables.PORT",
                "`containers.main.variables.PORT` must be text, not 80.",
                'write it in quotes: "80"',
            ),
        ),
        (
            HEAD + "containers:\n  main:\n    imge: busybox\n    image: busybox\n",
            (
                6,
                5,
                "containers.main.imge",
                "`imge` is not a key of `containers.main`.",
                "did you mean `image`?",
            ),
        ),
        (
            HEAD + "containers:\n  Main_One:\n    image: busybox\n",
            (
                5,
                3,
                "containers.Main_One",
                "`Main_One` is not a valid name in `containers`.",
                (
                    "did you mean `main-one`? a name has 2 to 63 of a-z, 0-9 and -, and neither starts "
                    "nor ends with -"
                ),
            ),
        ),
        (
            WHOLE + "resources:\n  db:\n    type: postgres\n    properties: {}\n",
            (
                10,
                5,
                "resources.db.properties",
                "`properties` is not a key of `resources.db`.",
                "did you mean `params`?",
            ),
        ),
        (
            WHOLE + "    files:\n      /a.txt: {mode: '0644'}\n",
            (
                8,
                15,
                r"containers.main.files./a\.txt",
                (
                    "`containers.main.files./a.txt` needs exactly one of `content`, `binaryContent`, "
                    "`source` and has none."
                ),
                "",
            ),
        ),
        (
            WHOLE
            + "    variables: {A: '${resources.bd.host}'}\nresources: {db: {type: postgres}}\n",
            (
                7,
                20,
                "containers.main.variables.A",
                (
                    "The placeholder ${resources.bd.host} does not resolve to a resource: there is no "
                    'resource with name "bd".'
                ),
                "did you mean `db`?",
            ),
        ),
        (
            WHOLE + "    variables: {A: '${db.host}'}\nresources: {db: {type: postgres}}\n",
            (
                7,
                20,
                "containers.main.variables.A",
                (
                    'The placeholder ${db.host} has unsupported first element "db": it must be '
                    "`resources` or `metadata`."
                ),
                "did you mean `${resources.db.host}`?",
            ),
        ),
        (
            WHOLE + "service: {ports: {web: {port: 70000}}}\n",
            (
                7,
                31,
                "service.ports.web.port",
                "`service.ports.web.port` must be at most 65535, not 70000.",
                "",
            ),
        ),
        (
            WHOLE + "service: {ports: {web: {port: 80, protocol: tcp}}}\n",
            (
                7,
                45,
                "service.ports.web.protocol",
                "`service.ports.web.protocol` must be one of TCP, UDP.",
                "did you mean `TCP`?",
            ),
        ),
        (
            WHOLE.replace("v1b1", "v1b2"),
            (
                1,
                13,
                "apiVersion",
                '`apiVersion` may not be "score.dev/v1b2".',
                "write score.dev/v1b1",
            ),
        ),
        (
            WHOLE + "    variables: {A: '${resources.db.}'}\n",
            (
                7,
                20,
                "containers.main.variables.A",
                (
                    "The placeholder ${resources.db.} is malformed: it takes two or more names "
                    "with dots between them, each of letters, digits, `_` and `-`."
                ),
                r"write $$ for a dollar sign, and \. for a dot inside a name",
            ),
        ),
        (
            HEAD + "containers: {}\n",
            (4, 13, "containers", "`containers` needs at least one entry.", ""),
        ),
        (
            "- a\n",
            (
                1,
                1,
                "",
                'A Score file is a map, not ["a"].',
                "start with `apiVersion: score.dev/v1b1`",
            ),
        ),
        (
            "# only this\n",
            (
                1,
                1,
                "",
                "The file is empty.",
                "a Score file starts with `apiVersion: score.dev/v1b1`",
            ),
        ),
    ],
)
def test_a_problem_has_its_place_a_sentence_and_a_remedy(
    text: str, problem: tuple[int, int, str, str, str]
) -> None:
    assert problems(text) == [problem]


def test_a_cycle_of_containers_is_told_as_a_path() -> None:
    text = HEAD + (
        "containers:\n"
        "  one: {image: x, before: {two: {ready: started}}}\n"
        "  two: {image: x, before: {one: {ready: started}}}\n"
    )

    [(line, _, path, message, _)] = problems(text)

    assert (line, path) == (5, "containers.one.before")
    assert message.startswith(
        "The containers before relationships contain a cycle: one → two → one"
    )


def test_the_short_form_is_valid_in_params_only_and_files_may_opt_out() -> None:
    text = WHOLE + (
        "    files: {/a: {content: '${anything at all}', noExpand: true}}\n"
        "resources:\n  db: {type: postgres}\n  dns: {type: dns, params: {to: '${db.host}'}}\n"
    )

    assert problems(text) == []


def test_documents_of_one_text_are_judged_one_by_one() -> None:
    first, second = read_documents(f"{WHOLE}---\napiVersion: score.dev/v1b1\n", file="all.yaml")

    assert (first.name, first.problems, first.line) == ("shop", [], 1)
    assert (second.workload, second.line) == (None, 8)
    assert {problem.line for problem in second.problems} == {8}


def test_an_invalid_document_still_says_who_it_is() -> None:
    [document] = read_documents(WHOLE + "resources:\n  db: {type: postgres, size: 5}\n")

    assert document.workload is None
    assert (document.name, document.uids) == ("shop", {"db": "postgres.default#shop.db"})


def test_deprecated_lists_are_migrated_with_their_places() -> None:
    text = WHOLE + (
        "    files:\n"
        "      - target: /etc/one\n"
        "        content: [a, b]\n"
        "    volumes:\n"
        "      - target: /data\n"
        "        source: ${resources.data}\n"
        "        read_only: true\n"
        "resources: {data: {type: volume}}\n"
    )

    [document] = read_documents(text)

    assert document.changes == [
        "containers.main.files.0.content: migrated from a list of lines to text.",
        "containers.main.files: migrated from a list to a map.",
        "containers.main.volumes.0.read_only: migrated to readOnly.",
        "containers.main.volumes: migrated from a list to a map.",
    ]
    assert document.workload is not None
    assert document.workload.containers["main"]["files"] == {"/etc/one": {"content": "a\nb"}}
    assert document.workload.position("containers.main.volumes./data.source") == (12, 17)


def test_a_deprecated_entry_needs_a_target_of_its_own() -> None:
    text = WHOLE + (
        "    files:\n      - content: a\n      - {target: /a, content: b}\n"
        "      - {target: /a, content: c}\n"
    )

    assert [(line, message) for line, _, _, message, _ in problems(text)] == [
        (8, "`containers.main.files.0` has no `target` that is text."),
        (10, "The target `/a` is given twice."),
    ]


def test_an_application_is_refused_with_the_problems_of_all_its_files() -> None:
    with pytest.raises(ScoreError) as refused:
        parse_application([("a.yaml", "a: 1\n"), ("b.yaml", WHOLE), ("c.yaml", WHOLE)])

    files = [problem.file for problem in refused.value.problems]
    assert files == ["a.yaml"] * 4 + ["c.yaml"]
    assert refused.value.problems[-1].message == (
        "The name `shop` is already that of the workload in b.yaml:3."
    )


def test_an_application_has_its_workloads_in_order_of_their_names() -> None:
    other = WHOLE.replace("shop", "alpha")

    assert [w.name for w in parse_application([("b", WHOLE), ("a", other)])] == ["alpha", "shop"]


def test_a_cycle_is_told_along_with_the_other_problems_of_its_file() -> None:
    text = WHOLE + (
        "resources:\n  one: {type: cache, params: {from: '${two.host}'}}\n"
        "  two: {type: cache, dependsOn: [one], parms: {}}\n"
    )

    assert [(line, message) for line, _, _, message, _ in problems(text)] == [
        (
            8,
            (
                "These resources need one another, so none can be first: one → two → one. The "
                "references are `resources.one.params.from`, `resources.two.dependsOn`."
            ),
        ),
        (9, "`parms` is not a key of `resources.two`."),
    ]


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("type", "it has 2 to 63 of A-Z, a-z, 0-9 and -, and neither starts nor ends with -"),
        (
            "id",
            "it has 2 to 63 of a-z, 0-9, - and ., and starts and ends with a letter or a digit",
        ),
    ],
)
def test_a_word_of_the_wrong_form_is_told_the_form(key: str, hint: str) -> None:
    values = {"type": "postgres", key: "X_"}
    text = (
        "apiVersion: score.dev/v1b1\nmetadata: {name: web}\ncontainers: {main: {image: x}}\n"
        f"resources: {{db: {json.dumps(values)}}}\n"
    )

    _, [problem] = parse(text)

    assert (problem.path, problem.hint) == (f"resources.db.{key}", hint)


@pytest.mark.parametrize("text", ["resources.db.a/b", "resources.db.a#b", "metadata.a#b"])
def test_only_names_of_annotations_have_a_slash(text: str) -> None:
    _, problems = parse(
        "apiVersion: score.dev/v1b1\nmetadata: {name: api}\n"
        f"containers: {{main: {{image: busybox, variables: {{A: '${{{text}}}'}}}}}}\n"
        "resources: {db: {type: postgres}}\n"
    )

    assert [problem.message.partition(" is ")[2][:9] for problem in problems] == ["malformed"]
