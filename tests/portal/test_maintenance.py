from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient

from provisioning.models import Deployment, Membership, Role
from provisioning.services.resources.destroy import destroy_resource
from tests.portal.commands import run
from tests.provisioning.place import Place

SHARED = "  db:\n    type: database\n    reference: {mode: shared, name: db}\n"


@pytest.fixture
def maintenance(place: Place, alice: User) -> Deployment:
    """Return what destroys alice's team's database although it is used."""
    place.template("database", outputs={"host": False})
    place.deploy(SHARED)
    resource = place.resource("shared/db")
    Membership.objects.create(team=resource.owner_team, user=alice, role=Role.OWNER)
    return place.done(
        destroy_resource(resource=resource, actor=alice, force=True, reason="It was breached.")
    )


def test_the_owner_sees_it_on_the_pages(
    client: Client, maintenance: Deployment, alice: User
) -> None:
    client.force_login(alice)

    listed = client.get("/deployments/")
    shown = client.get(f"/deployments/{maintenance.pk}/")

    assert (listed.status_code, shown.status_code) == (200, 200)
    assert f"/deployments/{maintenance.pk}/" in listed.content.decode()
    assert "Maintenance" in shown.content.decode()
    assert "None" not in shown.content.decode()


def test_others_do_not_see_it(client: Client, maintenance: Deployment, bob: User) -> None:
    client.force_login(bob)

    assert client.get(f"/deployments/{maintenance.pk}/").status_code == 404
    assert f"/deployments/{maintenance.pk}/" not in client.get("/deployments/").content.decode()


def test_rest_shows_it_without_an_application(maintenance: Deployment, alice: User) -> None:
    api = APIClient()
    api.credentials(HTTP_AUTHORIZATION=f"Token {Token.objects.create(user=alice).key}")

    shown = api.get(f"/api/v1/deployments/{maintenance.pk}/").json()

    assert (shown["kind"], shown["application"], shown["status"]) == (
        "maintenance",
        None,
        "succeeded",
    )


def test_the_logs_of_it_can_be_read(maintenance: Deployment) -> None:
    ran = run("logs", str(maintenance.pk))

    assert ran.status == 0
    assert "Pretending to work on" in ran.out
