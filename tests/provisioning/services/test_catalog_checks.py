from __future__ import annotations

from pathlib import Path

import pytest

from provisioning.models import Organisation, ResourceTemplateVersion
from provisioning.services.catalog import CatalogError, sync_catalog
from provisioning.services.people import system_user

TEMPLATE = """\
name: database
type: database
version: 1.0.0
driver: template
params:
  connections: {type: integer}
  password: {type: string, writeOnly: true}
outputs:
  max: {type: integer}
config:
  outputs: {max: "${params.connections}"}
checks:
  - condition: outputs.max >= wish.connections
    message: It allows fewer connections than asked for.
"""


def sync(folder: Path, text: str) -> None:
    (folder / "template.yaml").write_text(text)
    organisation = Organisation.objects.get_or_create(name="acme")[0]
    sync_catalog(organisation=organisation, source=str(folder), actor=system_user())


def test_checks_are_stored(db: None, tmp_path: Path) -> None:
    sync(tmp_path, TEMPLATE)

    assert ResourceTemplateVersion.objects.get().checks == [
        {
            "condition": "outputs.max >= wish.connections",
            "message": "It allows fewer connections than asked for.",
        }
    ]


@pytest.mark.parametrize(
    ("condition", "line", "told"),
    [
        ("outputs.min >= wish.connections", 13, "There is no fact `outputs.min`. There are wish.connections"),
        ("outputs.max >= wish.conections", 13, "There is no fact `wish.conections`."),
        ("outputs.max >= params.gone", 13, "There is no fact `params.gone`."),
        ("outputs.max >= context.workload", 13, "There is no fact `context.workload`."),
        ("len(outputs.max) > 3", 13, "`len(outputs.max)` is not allowed in a rule."),
        ("outputs.max >", 13, "cannot be read"),
        ("1 < 2", 13, "The condition 1 < 2 compares no facts."),
        ("outputs.max == wish.password", 13, "The param password is sensitive"),
        ("outputs.max\n    why: x", 14, "why is not a key that is known here."),
    ],
)  # fmt: skip
def test_condition_that_cannot_be_evaluated_is_refused_with_its_line(
    db: None, tmp_path: Path, condition: str, line: int, told: str
) -> None:
    with pytest.raises(CatalogError) as refused:
        sync(tmp_path, TEMPLATE.replace("outputs.max >= wish.connections", condition))

    assert f"template.yaml:{line}:" in str(refused.value)
    assert told in str(refused.value)
    assert not ResourceTemplateVersion.objects.exists()


def test_a_template_with_any_params_and_outputs_may_compare_all(db: None, tmp_path: Path) -> None:
    open_ended = "name: a\ntype: qu\nversion: 1.0.0\ndriver: fake\noutputs: {'*': {}}\nchecks:\n"

    sync(tmp_path, open_ended + "  - {condition: outputs.x == wish.y, message: Not the same.}\n")

    assert ResourceTemplateVersion.objects.count() == 1
