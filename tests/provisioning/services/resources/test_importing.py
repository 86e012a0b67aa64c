from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import User

from provisioning.encryption import decrypt_bytes
from provisioning.models import (
    AuditEvent,
    Deployment,
    Resource,
    ResourceConsumer,
    StateVersion,
    Step,
)
from provisioning.services.people import NotAllowedError, system_user
from provisioning.services.resources.adopt import AdoptionError
from provisioning.services.resources.destroy import destroy_resource
from provisioning.services.resources.importing import import_resource
from provisioning.services.resources.policy import retain_resource
from tests.provisioning.place import Place

KEY = "shared/legacy"
SHARED = "  db:\n    type: thing\n    reference: {mode: shared, name: legacy}\n"
MODULE = """
variable "more" {
  type    = bool
  default = false
}
resource "terraform_data" "it" {
}
resource "terraform_data" "more" {
  count = var.more ? 1 : 0
}
output "id" {
  value = terraform_data.it.id
}
"""
SCHEMA = {
    "type": "object",
    "properties": {"more": {"type": "boolean", "default": False}},
    "additionalProperties": False,
}
ONE = [("terraform_data.it", "it-1")]


@pytest.fixture(autouse=True)
def templates(place: Place) -> None:
    place.template(
        "thing",
        driver="terraform",
        outputs={"id": False},
        content={"main.tf": MODULE},
        params_schema=SCHEMA,
    )


def imported(place: Place, imports: list[tuple[str, str]] = ONE, **more: Any) -> Deployment:
    given: dict[str, Any] = {
        "environment": place.environment,
        "name": "legacy",
        "type_": "thing",
        "template": place.templates["thing"].template,
        "team": place.application().team,
        "imports": imports,
        "actor": system_user(),
    }
    return place.done(import_resource(**given | more))


def ids_in_state(place: Place) -> list[str]:
    """Return the ids in the newest state of the resource."""
    newest = StateVersion.objects.filter(resource__key=KEY).latest("number")
    state = json.loads(decrypt_bytes(bytes(newest.data)))
    return sorted(
        instance["attributes"]["id"]
        for each in state["resources"]
        for instance in each["instances"]
    )


@pytest.mark.terraform
def test_what_exists_becomes_a_resource_like_any_other(place: Place) -> None:
    deployment = imported(place)

    resource = place.resource(KEY)
    assert deployment.status == "succeeded"
    assert deployment.plan["resources"][0]["reason"] == "takes in what exists: terraform_data.it"
    assert (resource.state, resource.adopted, resource.imports) == ("active", False, {})
    assert (resource.deletion_policy, resource.owner_team.name) == ("retain", "everybody")
    assert {each.key: each.value for each in resource.outputs.all()} == {"id": "it-1"}
    assert ids_in_state(place) == ["it-1"]
    asked = AuditEvent.objects.get(action="resource.import_asked")
    assert asked.reason == "Take in what exists: terraform_data.it is it-1."
    moved = AuditEvent.objects.get(action="resource.active")
    assert (moved.reason, moved.deployment_id) == (
        "It took in terraform_data.it.",
        str(deployment.pk),
    )


@pytest.mark.terraform
def test_it_is_reused_updated_and_kept_when_its_user_leaves(place: Place) -> None:
    imported(place)

    joined = place.deploy(SHARED)
    updated = place.deploy(SHARED + "    params: {more: true}\n")
    place.teardown()

    assert joined.plan["resources"][0]["reason"] == "adopted, and there is no difference"
    assert not joined.steps.exists()
    assert updated.status == "succeeded"
    assert place.states() == {KEY: "active"}
    assert len(ids_in_state(place)) == 2
    assert "it-1" in ids_in_state(place)


@pytest.mark.terraform
def test_its_owner_may_let_it_be_destroyed(place: Place) -> None:
    imported(place)
    resource = retain_resource(resource=place.resource(KEY), retain=False, actor=system_user())

    deployment = place.done(destroy_resource(resource=resource, actor=system_user()))

    assert deployment.status == "succeeded"
    assert place.states() == {KEY: "deleted"}
    assert ids_in_state(place) == []


@pytest.mark.terraform
def test_what_would_do_more_is_refused_until_it_is_allowed(place: Place) -> None:
    refused = imported(place, params={"more": True})

    assert refused.status == "failed"
    assert "Nothing was imported, because the module would also create terraform_data.more[0]." in (
        refused.status_reason
    )
    assert place.resource(KEY).imports == {"terraform_data.it": "it-1"}
    assert not StateVersion.objects.exists()

    allowed = imported(place, params={"more": True}, allow_changes=True)

    assert allowed.status == "succeeded"
    assert Resource.objects.count() == 1
    assert "it-1" in ids_in_state(place)


@pytest.mark.terraform
def test_whoever_ensures_it_later_tries_the_import_again(place: Place) -> None:
    imported(place, params={"more": True})

    deployment = place.deploy(SHARED + "    params: {more: false}\n")

    assert deployment.status == "succeeded"
    assert ids_in_state(place) == ["it-1"]
    assert place.resource(KEY).imports == {}


@pytest.mark.terraform
def test_a_failed_import_that_is_used_is_not_replaced(place: Place) -> None:
    imported(place, params={"more": True})
    place.deploy(SHARED)
    assert place.resource(KEY).state == "failed"

    with pytest.raises(
        AdoptionError, match="legacy is used by shop/web already: deploy that again"
    ):
        imported(place)

    assert place.resource(KEY).params == {"more": True}


def nothing_happened() -> bool:
    rows = (Resource, Deployment, Step, ResourceConsumer)
    return not any(model.objects.exists() for model in rows)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"imports": []}, "Name at least one thing"),
        ({"imports": [("terraform_data", "x")]}, "terraform_data cannot be imported: it is not written"),
        ({"imports": [("terraform_data.gone", "x")]}, "the module declares no terraform_data.gone."),
        ({"imports": ONE * 2}, "terraform_data.it cannot be imported: it is given twice."),
        ({"imports": [("terraform_data.it", "")]}, "its id is empty"),
        ({"params": {"most": True}}, "'most' was unexpected"),
        ({"params": {"more": "${resources.x.y}"}}, "`more` refers to a resource"),
        ({"name": "Not A Name"}, "is not a name"),
        ({"type_": "cache"}, "is for thing"),
        ({"version": "9.9.9"}, "has no active version 9.9.9"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(place: Place, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(AdoptionError, match=message):
        imported(place, **wrong)

    assert nothing_happened()


def test_a_driver_that_cannot_import_is_refused(place: Place) -> None:
    fake = place.template("cache").template

    with pytest.raises(AdoptionError, match="driver fake, which cannot import"):
        imported(place, template=fake, type_="cache")

    assert nothing_happened()


def test_a_template_that_requires_more_is_refused(place: Place) -> None:
    needy = place.template(
        "app",
        driver="terraform",
        content={"main.tf": MODULE},
        requirements=[{"key": "it", "type": "thing"}],
    )

    with pytest.raises(AdoptionError, match="requires further resources"):
        imported(place, template=needy.template, type_="app")

    assert nothing_happened()


def test_only_staff_imports(place: Place, alice: User) -> None:
    with pytest.raises(NotAllowedError):
        imported(place, actor=alice)

    assert nothing_happened()


@pytest.mark.terraform
def test_a_name_that_is_taken_is_refused(place: Place) -> None:
    imported(place)

    with pytest.raises(AdoptionError, match="has a shared resource legacy already"):
        imported(place)

    assert Deployment.objects.count() == 1


@pytest.mark.terraform
def test_the_environments_defaults_are_part_of_it(place: Place) -> None:
    place.environment.defaults = {"thing": {"more": False}}
    place.environment.save()
    imported(place)

    joined = place.deploy(SHARED)

    assert place.resource(KEY).params == {"more": False}
    assert joined.plan["resources"][0]["action"] == "reuse"
    assert not joined.steps.exists()
