from __future__ import annotations

import pytest

from provisioning.score.document import parse

FILE = """\
apiVersion: score.dev/v1b1
metadata: {{name: web}}
containers: {{main: {{image: busybox}}}}
resources:
  db:
    type: postgres
    params:
      password: {value}
"""


@pytest.mark.parametrize(
    "value",
    [
        "{secretref: 'env:DB_PASSWORD'}",
        "{secretref: 'file:db/password'}",
        "[{secretref: 'vault:kv/db#password'}]",
    ],
)
def test_a_well_formed_reference_is_accepted(value: str) -> None:
    _, problems = parse(FILE.format(value=value))

    assert problems == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{secretref: DB}", "of the form scheme:place"),
        ("{secretref: 5}", "of the form scheme:place"),
        ("{secretref: 'env:'}", "of the form scheme:place"),
        ("{secretref: 'env:${metadata.name}'}", "without spaces or placeholders"),
        ("{secretref: 'env:DB', default: x}", "stands alone, without default"),
    ],
)
def test_a_malformed_reference_is_a_problem_at_its_place(value: str, message: str) -> None:
    workloads, problems = parse(FILE.format(value=value))

    assert workloads == []
    assert [(each.line, each.path) for each in problems] == [(8, "resources.db.params.password")]
    assert message in problems[0].message
