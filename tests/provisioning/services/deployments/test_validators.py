from __future__ import annotations

from typing import Any

from provisioning.models import AuditEvent, Step
from provisioning.services.deployments.wishes import wishes_not_met
from tests.provisioning.place import Place

NEED = "component/shop/database.default#primary"
API = "private/shop/web/users/api.default"
USERS = "  users:\n    type: api\n"
ROOM = {"condition": "outputs.room >= wish.size", "message": "The API needs more room."}
NO_ROOM = (
    f"{NEED} does not suit what api-template 1.0.0 requires as `primary` for shop/web.users: The "
    "API needs more room (outputs.room is 5, wish.size is 9)."
)


def with_api(place: Place, *validators: dict[str, str], size: int = 9, **more: Any) -> None:
    """Register a component that requires a database of a size."""
    need = {
        "key": "primary",
        "type": "database",
        "params": {"size": size},
        "validators": list(validators),
    }
    place.template("api", driver="template", requirements=[need], **more)


def test_component_that_gets_what_does_not_suit_it_fails_alone(place: Place) -> None:
    place.template("database", outputs={"room": False}, config={"outputs": {"room": 5}})
    with_api(place, ROOM)

    deployment = place.deploy(USERS)

    assert deployment.status == "failed"
    assert deployment.status_reason == f"{API} failed: {NO_ROOM}"
    assert place.states() == {NEED: "active", API: "failed"}
    assert place.steps(deployment)[API] == ("ensure", "failed", False)
    assert wishes_not_met(deployment) == [f"shop/web.users: {NO_ROOM}"]


def test_component_that_gets_what_suits_it_is_made(place: Place) -> None:
    place.template("database", outputs={"room": False}, config={"outputs": {"room": 9}})
    with_api(place, ROOM)

    deployment = place.deploy(USERS)

    assert deployment.status == "succeeded"
    assert wishes_not_met(deployment) == []


def test_secret_output_decides_and_is_not_shown(place: Place) -> None:
    place.template("database", outputs={"key": True}, config={"outputs": {"key": "s3cret-one"}})
    with_api(place, {"condition": "outputs.key == wish.size", "message": "It has another key."})

    deployment = place.deploy(USERS)

    assert deployment.status == "failed"
    assert "(outputs.key is a secret, wish.size is 9)." in deployment.status_reason
    assert not AuditEvent.objects.filter(reason__contains="s3cret").exists()
    assert not Step.objects.filter(error__contains="s3cret").exists()


def test_update_that_no_longer_suits_another_workload_fails_there_and_tells_it(
    place: Place,
) -> None:
    place.template(
        "database",
        driver="template",
        outputs={"room": False},
        config={"outputs": {"room": "${params.size}"}},
        merge_rules={"size": {"rule": "priority"}},
    )
    with_api(place, ROOM)
    small = {"key": "primary", "type": "database", "priority": 5, "params": {"size": 5}}
    place.template("site", driver="template", requirements=[small])
    assert place.deploy(USERS).status == "succeeded"

    deployment = place.deploy("  front:\n    type: site\n", workload="shop")

    assert deployment.status == "failed"
    assert place.states() == {
        NEED: "active",
        API: "failed",
        "private/shop/shop/front/site.default": "active",
    }
    assert f"shop/web.users: {NO_ROOM}" in wishes_not_met(deployment)
    assert place.teardown(workloads=["shop"]).status == "succeeded"
    assert place.resource(API).state == "active"
