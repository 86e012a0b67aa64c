"""Where states are kept: settled at first, and for good."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from provisioning.drivers.terraform.application import Application
from provisioning.models import Environment, Resource, StateVersion
from tests.provisioning.place import Place

pytestmark = pytest.mark.terraform

MODULE = """
variable "size" { default = "small" }
resource "terraform_data" "it" { input = var.size }
output "size" { value = terraform_data.it.output }
"""
ONE = "  one:\n    type: thing\n"
TWO = ONE + "  two:\n    type: thing\n"


@pytest.fixture
def things(place: Place, tmp_path: Path) -> Place:
    """Return a place that keeps the states of new resources in a folder."""
    place.template(
        "thing", driver="terraform", outputs={"size": False}, content={"main.tf": MODULE}
    )
    keep(tmp_path / "first")
    return place


def keep(folder: Path) -> None:
    Environment.objects.update(state_backend={"type": "local", "path": str(folder)})


def kept_in(folder: Path) -> set[str]:
    return {file.parent.name for file in folder.glob("*/terraform.tfstate")}


def test_a_resource_keeps_its_place_and_new_ones_go_to_the_new(
    things: Place, tmp_path: Path
) -> None:
    things.deploy(ONE)
    one = Resource.objects.get()
    file = tmp_path / "first" / str(one.pk) / "terraform.tfstate"
    assert (one.state_backend, one.state_location) == ("local", str(file))
    assert one.state_metadata["config"] == {"path": str(file)}
    assert one.state_metadata["lineage"] == json.loads(file.read_text())["lineage"]

    keep(tmp_path / "second")
    things.environment.refresh_from_db()
    things.deploy(TWO.replace("type: thing\n", "type: thing\n    params: {size: large}\n"))
    two = Resource.objects.exclude(pk=one.pk).get()
    assert json.loads(file.read_text())["outputs"]["size"]["value"] == "large"
    assert kept_in(tmp_path / "first") == {str(one.pk)}
    assert kept_in(tmp_path / "second") == {str(two.pk)}
    assert not StateVersion.objects.exists()


def test_a_resource_is_destroyed_where_its_state_is(things: Place, tmp_path: Path) -> None:
    things.deploy(ONE)
    Environment.objects.update(state_backend={"type": "managed"})
    assert things.teardown().status == "succeeded"
    (file,) = (tmp_path / "first").glob("*/terraform.tfstate")
    assert json.loads(file.read_text())["resources"] == []
    assert Resource.objects.get().state == "deleted"


def test_the_place_is_known_before_anything_is_made(
    things: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    apply = Application.apply

    def watched(self: Application) -> object:
        seen.append(Resource.objects.get().state_location)
        return apply(self)

    monkeypatch.setattr(Application, "apply", watched)
    things.deploy(ONE)
    assert seen == [Resource.objects.get().state_location] != [""]


def test_a_managed_state_stays_managed(place: Place, tmp_path: Path) -> None:
    place.template("thing", driver="terraform", content={"main.tf": MODULE})
    place.deploy(ONE)
    keep(tmp_path / "later")
    place.deploy(ONE + "    params: {size: large}\n")
    resource = Resource.objects.get()
    assert (resource.state_backend, resource.state_location) == (
        "managed",
        f"resources/{resource.pk}",
    )
    newest = StateVersion.objects.latest("number")
    assert resource.state_metadata == {"serial": str(newest.serial), "lineage": newest.lineage}
    assert not (tmp_path / "later").exists()


def test_other_drivers_do_not_care(place: Place, tmp_path: Path) -> None:
    place.template("part")
    keep(tmp_path / "states")
    place.deploy("  one:\n    type: part\n")
    assert Resource.objects.get().state_backend == ""
