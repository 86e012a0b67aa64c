from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from provisioning.models import AuditEvent, PossibleOrphan, Resource, StateVersion
from tests.portal.test_rest_deployments import client_of
from tests.provisioning.place import Place
from tests.provisioning.services.test_state_versions import state, store

SHARED = "  db:\n    type: database\n    reference: {mode: shared, name: db}\n"


@pytest.fixture
def url(place: Place, charlie: User) -> str:
    """Return the address of a resource of charlie's team that has two states."""
    place.team_named("everybody", charlie)
    place.template("database", outputs={"host": False})
    place.deploy(SHARED)
    resource = place.resource("shared/db")
    secret = {"password": {"value": "s3cret", "sensitive": True}}
    store(resource, state(3))
    store(resource, state(4, outputs=secret))
    return f"/api/v1/resources/{resource.pk}"


@pytest.fixture
def owner(url: str, charlie: User) -> APIClient:
    return client_of(charlie)


def test_an_owner_lists_the_versions(owner: APIClient, url: str) -> None:
    answer = owner.get(f"{url}/state/")
    assert answer.status_code == 200
    assert [(each["number"], each["serial"]) for each in answer.json()["versions"]] == [
        (2, 4),
        (1, 3),
    ]
    assert set(answer.json()["versions"][0]) == {
        "number", "serial", "lineage", "size", "created_at", "deployment", "stored_by",
    }  # fmt: skip


def test_an_owner_sees_what_a_version_holds_and_no_value(owner: APIClient, url: str) -> None:
    answer = owner.get(f"{url}/state/2/")
    assert answer.json()["outputs"] == [{"name": "password", "sensitive": True}]
    assert "s3cret" not in answer.content.decode()
    assert owner.get(f"{url}/state/9/").status_code == 404


def test_an_owner_reveals_a_whole_state_and_that_is_told(owner: APIClient, url: str) -> None:
    answer = owner.get(f"{url}/state/1/content/")
    assert (answer.content, answer["Cache-Control"]) == (state(3), "no-store")
    assert AuditEvent.objects.get(action="state.pulled").actor == "charlie"


def test_an_owner_restores_with_a_reason(owner: APIClient, url: str) -> None:
    assert owner.post(f"{url}/state/1/restore/", {}).status_code == 400
    assert owner.post(f"{url}/state/2/restore/", {"reason": "x"}).status_code == 409
    answer = owner.post(f"{url}/state/1/restore/", {"reason": "It was better."})
    assert (answer.status_code, answer.json()["number"], answer.json()["serial"]) == (201, 3, 5)
    assert StateVersion.objects.count() == 3


def test_an_owner_accepts_an_external_state(owner: APIClient, url: str) -> None:
    assert owner.post(f"{url}/state/accept/", {"reason": "x"}).status_code == 409
    Resource.objects.update(state_backend="s3", state_metadata={"lineage": "a"})
    assert owner.post(f"{url}/state/accept/", {"reason": "It was moved."}).status_code == 204
    assert Resource.objects.get().state_metadata == {}


def test_possible_orphans_are_told_and_dismissed(owner: APIClient, url: str) -> None:
    PossibleOrphan.objects.create(
        resource=Resource.objects.get(), address="aws_vpc.a", type="aws_vpc", id_value="vpc-1"
    )
    assert owner.get(f"{url}/orphans/").json() == [
        {
            "address": "aws_vpc.a",
            "type": "aws_vpc",
            "id_key": "",
            "id": "vpc-1",
            "import": 'import {\n  to = aws_vpc.a\n  id = "vpc-1"\n}\n',
        }
    ]
    assert owner.delete(f"{url}/orphans/", {}).status_code == 400
    assert PossibleOrphan.objects.exists()
    assert owner.delete(f"{url}/orphans/", {"reason": "Deleted by hand."}).status_code == 200
    assert owner.get(f"{url}/orphans/").json() == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", "state/"),
        ("get", "state/1/"),
        ("get", "state/1/content/"),
        ("post", "state/1/restore/"),
        ("post", "state/accept/"),
        ("get", "orphans/"),
        ("delete", "orphans/"),
    ],
)
def test_strangers_find_nothing_and_members_are_refused(
    place: Place, url: str, alice: User, bob: User, method: str, path: str
) -> None:
    place.application("shop", bob)
    body = {"reason": "x"} if method != "get" else None
    assert getattr(APIClient(), method)(f"{url}/{path}", body).status_code == 401
    assert getattr(client_of(alice), method)(f"{url}/{path}", body).status_code == 404
    expected = 200 if (method, path) == ("get", "orphans/") else 403
    assert getattr(client_of(bob), method)(f"{url}/{path}", body).status_code == expected
    assert StateVersion.objects.count() == 2
    assert not AuditEvent.objects.filter(action__startswith="state.").exists()
