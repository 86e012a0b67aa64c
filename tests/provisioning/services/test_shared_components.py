"""A shared resource that consists of more: whoever may use it may use its parts, and no longer."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User

from provisioning.models import Approval, Resource, ResourceConsumer
from provisioning.services.approvals import approve
from provisioning.services.resources.shared import list_shared
from provisioning.services.sharing import revoke, set_policy, transfer
from tests.provisioning.place import Place
from tests.provisioning.services.owners import consumers

API = "  users:\n    type: api\n    reference: {mode: shared, name: users}\n"
ROOT, PART = "shared/users", "with/shared/users/database.default#store"


@pytest.fixture
def owned(place: Place, charlie: User, bob: User) -> Place:
    """Return a place where charlie's team has an API with a database of its own."""
    place.team = ""
    place.template("database", outputs={"host": False})
    place.template(
        "api", outputs={"host": False}, requirements=[{"key": "store", "type": "database"}]
    )
    place.team_named("shop-team", charlie)
    place.team_named("billing-team", bob)
    place.deploy(API)
    assert place.states() == {ROOT: "active", PART: "active"}
    return place


def join(place: Place, bob: User, charlie: User) -> ResourceConsumer:
    """Let billing use the API, and return its use."""
    deployment = place.submit(API, application="billing", actor=bob)
    place.done(approve(approval=deployment.approvals.get(), actor=charlie))
    return ResourceConsumer.objects.get(
        workload__application__name="billing", alias="users", state="active"
    )


def test_the_owners_are_asked_once_for_a_resource_with_its_parts(
    owned: Place, bob: User, charlie: User
) -> None:
    deployment = owned.submit(API, application="billing", actor=bob)

    approval = deployment.approvals.get()
    assert (deployment.status, approval.key) == ("pending_approval", ROOT)
    assert ("billing", "users/store") not in consumers("active")
    owned.done(approve(approval=approval, actor=charlie))
    assert ("billing", "users") in consumers("active")
    assert ("billing", "users/store") in consumers("active")


def test_nobody_is_asked_for_the_parts_of_what_is_open(
    owned: Place, bob: User, charlie: User
) -> None:
    set_policy(resource=owned.resource(ROOT), policy="open", actor=charlie)

    assert owned.deploy(API, application="billing", actor=bob).status == "succeeded"
    assert Approval.objects.count() == 0


def test_a_part_alone_is_asked_for(owned: Place, bob: User) -> None:
    part = owned.resource(PART)
    text = f"  db:\n    type: database\n    reference: {{mode: existing, id: {part.pk}}}\n"

    deployment = owned.submit(text, application="billing", actor=bob)

    assert (deployment.status, deployment.approvals.get().key) == ("pending_approval", PART)


def test_who_is_put_out_loses_the_parts_too(owned: Place, bob: User, charlie: User) -> None:
    consumer = join(owned, bob, charlie)

    lost = revoke(consumer=consumer, reason="Enough.", actor=charlie)

    assert lost.parts == (PART,)
    assert consumers("active") == [("shop", "users"), ("shop", "users/store")]
    assert consumers("revoked") == [("billing", "users"), ("billing", "users/store")]


def test_parts_are_handed_over_with_the_whole(owned: Place, charlie: User) -> None:
    transfer(resource=owned.resource(ROOT), team=owned.team_named("data"), actor=charlie)

    assert set(Resource.objects.values_list("key", "owner_team__name")) == {
        (ROOT, "data"),
        (PART, "data"),
    }


def test_what_one_applications_component_needs_is_not_shared_and_has_no_grace(
    place: Place,
) -> None:
    place.template("database", outputs={"host": False}, grace_seconds=3600)
    place.template("api", requirements=[{"key": "store", "type": "database"}])
    place.deploy("  users: {type: api}\n")
    part = "component/shop/database.default#store"
    assert place.states()[part] == "active"
    assert list_shared(organisation=place.organisation) == []

    place.teardown()

    assert place.states()[part] == "deleted"


def test_a_creator_that_is_put_out_leaves_the_parts_together(
    owned: Place, bob: User, charlie: User
) -> None:
    join(owned, bob, charlie)
    creator = ResourceConsumer.objects.get(
        workload__application__name="shop", alias="users", state="active"
    )

    revoke(consumer=creator, reason="It moves out.", actor=charlie)

    edge = owned.resource(ROOT).dependencies.get()
    assert edge.target == owned.resource(PART)
    assert consumers("active") == [("billing", "users"), ("billing", "users/store")]
