from __future__ import annotations

from pathlib import Path

import pytest
from django.db import IntegrityError

from provisioning.models import Organisation, ResourceTemplateVersion
from provisioning.services.catalog import CatalogError, sync_catalog
from provisioning.services.people import system_user

COMPONENT = """\
name: api
type: api
kind: component
version: 1.0.0
params: {entity: {type: string}}
requirements:
  - {key: store, type: database, params: {name: "${params.entity | lower}"}}
outputs:
  host: {value: "${store.host}"}
"""
VALIDATED = COMPONENT.replace(
    "outputs:",
    """\
  - key: cache
    type: redis
    params: {size: 3}
    validators:
      - condition: outputs.size >= wish.size
        message: It is too small.
outputs:""",
)
BUCKET = """\
name: bucket
type: bucket
version: 1.0.0
driver: fake
co_provision:
  - {type: policy, params: {from: "${self.host}"}}
"""


def sync(folder: Path, text: str) -> ResourceTemplateVersion:
    (folder / "template.yaml").write_text(text)
    organisation = Organisation.objects.get_or_create(name="acme")[0]
    sync_catalog(organisation=organisation, source=str(folder), actor=system_user())
    return ResourceTemplateVersion.objects.get()


def test_component_becomes_a_template_that_hands_its_outputs_on(db: None, tmp_path: Path) -> None:
    version = sync(tmp_path, COMPONENT)

    assert version.template.driver == "template"
    assert version.inputs == {"output.host": "${store.host}"}
    assert version.config == {"outputs": {"host": '${params["output.host"]}'}}
    assert [output["name"] for output in version.outputs] == ["host"]
    assert version.requirements[0]["key"] == "store"


def test_needs_of_an_active_version_never_change(db: None, tmp_path: Path) -> None:
    version = sync(tmp_path, COMPONENT)
    with pytest.raises(IntegrityError, match="cannot change any more"):
        ResourceTemplateVersion.objects.filter(pk=version.pk).update(requirements=[])


@pytest.mark.parametrize(
    ("text", "old", "new", "line", "told"),
    [
        (COMPONENT, "kind: component", "kind: component\ndriver: fake", 4, "A component has no driver."),
        (COMPONENT, "kind: component\n", "", 1, "driver is missing."),
        (COMPONENT, "{value: \"${store.host}\"}", "{}", 9, "The output host of a component needs a value."),
        (COMPONENT, "store.host", "stor.host", 9, "names nothing that it may see"),
        (COMPONENT, "params.entity", "params.entitty", 7, "names no param of the template"),
        (COMPONENT, "| lower", "| title", 7, "has the unknown filter title"),
        (COMPONENT, "${params.entity | lower}", "${self.host}", 7, "names nothing that it may see"),
        (COMPONENT, "params.entity | lower", "context.pod", 7, "names nothing; context has alias"),
        (COMPONENT, "outputs:", "  - {key: store, type: queue}\noutputs:", 8, "another need with the key store"),
        (VALIDATED, "wish.size", "wish.sice", 12, "There is no fact `wish.sice`. There are wish.size, params.…"),
        (VALIDATED, ">=", ">=>", 12, "cannot be read"),
        (VALIDATED, "outputs.size >= wish.size", "1 < 2", 12, "compares no facts"),
        (VALIDATED, "message: It is too small.", "why: Small.", 13, "why is not a key that is known here."),
        (BUCKET, "type: policy", "type: policy, validators: []", 6, "validators is not a key that is known here."),
        (BUCKET, "co_provision", "share_same: [1]\nco_provision", 5, "share_same"),
        (BUCKET, "${self.host}", "${policy.host}", 6, "names nothing that it may see"),
    ],
)  # fmt: skip
def test_mistake_is_refused_with_its_line(
    db: None, tmp_path: Path, text: str, old: str, new: str, line: int, told: str
) -> None:
    assert old in text
    with pytest.raises(CatalogError) as refused:
        sync(tmp_path, text.replace(old, new, 1))
    assert told in str(refused.value)
    assert f":{line}:" in str(refused.value)
    assert not ResourceTemplateVersion.objects.exists()
