from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from provisioning.planning.application import lint
from provisioning.score.document import read_documents

WHOLE: dict[str, Any] = {
    "apiVersion": "score.dev/v1b1",
    "metadata": {"name": "shop", "annotations": {"example.org/key": "x"}},
    "service": {"ports": {"web": {"port": 80}}},
    "containers": {
        "main": {
            "image": "x",
            "variables": {"A": "${resources.db.host}"},
            "files": {"/a": {"content": "${metadata.name}"}},
            "volumes": {"/b": {"source": "${resources.db}"}},
            "before": {"other": {"ready": "started"}},
            "livenessProbe": {"httpGet": {"path": "/", "port": 80}},
        },
        "other": {"image": "y", "files": [{"target": "/a", "content": ["b"]}]},
    },
    "resources": {
        "db": {
            "type": "postgres",
            "id": "main",
            "metadata": {"annotations": {"conductor.dev/sharing": "dedicated"}},
            "params": {"n": ["${net.x}"]},
            "dependsOn": [{"resource": "net", "type": "weak"}],
            "reference": {"mode": "dedicated"},
            "matching": {"sharingPolicy": "dedicated", "matchOn": ["n"]},
            "priority": 1,
        },
        "net": {"type": "network"},
    },
}


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if not isinstance(value, dict | list):
        return [path]
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return [path, *(each for key, item in items for each in paths(item, (*path, key)))]


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.sampled_from(["", "x", "${", "${x}", "${resources.db}", "db", "net", "shared", "a: b: c"]),
    st.lists(st.sampled_from(["db", 5, None, {}, {"resource": "net"}]), max_size=2),
    st.dictionaries(
        st.sampled_from(["type", "name", "id", "mode", "target", "content", "main", "resource"]),
        st.sampled_from(["x", 5, None, [], {}]),
        max_size=2,
    ),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(paths(WHOLE)[1:]), ANYTHING), min_size=1, max_size=3))
def test_a_document_that_is_wrong_anywhere_is_told_so_and_never_fails(
    changes: list[tuple[tuple[Any, ...], Any]],
) -> None:
    document = copy.deepcopy(WHOLE)
    for path, value in changes:
        target: Any = document
        try:
            for part in path[:-1]:
                target = target[part]
            target[path[-1]] = value
        except (KeyError, TypeError, IndexError):
            continue

    [found] = read_documents(json.dumps(document), file="a.yaml")

    assert (found.workload is None) == bool(found.problems)
    assert all(problem.line == 1 and problem.message for problem in found.problems)
    lint([("a.yaml", json.dumps(document))])
