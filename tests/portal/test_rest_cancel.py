from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient

from provisioning.models import AuditEvent, Deployment
from tests.provisioning.place import Place, score_file

URL = "/api/v1/deployments/"

DATABASE = "  db:\n    type: postgres\n"
REQUEST = {"application": "shop", "environment": "dev", "score": score_file("web", DATABASE)}


@pytest.fixture
def shop(place: Place, alice: User) -> Place:
    """Return a place where alice's team has the application shop."""
    place.template("postgres", outputs={"host": False})
    place.application("shop", alice)
    return place


@pytest.fixture
def api(shop: Place, alice: User) -> APIClient:
    """Return a client that acts as alice, by token."""
    return client_of(alice)


def client_of(user: User) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {Token.objects.create(user=user).key}")
    return client


def fresh(deployment: Deployment) -> Deployment:
    deployment.refresh_from_db()
    return deployment


def test_rest_cancels(api: APIClient, shop: Place) -> None:
    deployment = shop.submit(DATABASE)

    answer = api.post(f"{URL}{deployment.pk}/cancel/", {"reason": "Wrong region."})

    assert answer.status_code == 202
    assert answer.headers["Location"] == f"http://testserver{URL}{deployment.pk}/"
    assert (answer.json()["id"], answer.json()["status"]) == (deployment.pk, "cancelled")
    assert answer.json()["reason"].startswith("Cancelled by alice: Wrong region.")


@pytest.mark.parametrize("action", ["cancel", "retry"])
def test_rest_refuses_what_cannot_be(api: APIClient, shop: Place, action: str) -> None:
    deployment = shop.deploy(DATABASE)
    before = AuditEvent.objects.count()

    answer = api.post(f"{URL}{deployment.pk}/{action}/")

    assert answer.status_code == 409
    assert answer.json()["detail"].startswith(f"Deployment {deployment.pk} ")
    assert AuditEvent.objects.count() == before


@pytest.mark.parametrize("action", ["cancel", "retry"])
def test_rest_refuses_fields_that_nobody_reads(api: APIClient, shop: Place, action: str) -> None:
    deployment = shop.submit(DATABASE)

    answer = api.post(f"{URL}{deployment.pk}/{action}/", {"why": "so"})

    assert (answer.status_code, list(answer.json())) == (400, ["why"])
    assert fresh(deployment).status == "running"


@pytest.mark.parametrize("action", ["cancel", "retry"])
def test_to_others_there_is_no_such_deployment(
    shop: Place, bob: User, charlie: User, action: str
) -> None:
    deployment = shop.submit(DATABASE)

    assert client_of(bob).post(f"{URL}{deployment.pk}/{action}/").status_code == 404
    assert APIClient().post(f"{URL}{deployment.pk}/{action}/").status_code == 401
    assert fresh(deployment).status == "running"


def test_rest_retries_once(api: APIClient, shop: Place) -> None:
    deployment = shop.submit(DATABASE)
    api.post(f"{URL}{deployment.pk}/cancel/")

    first = api.post(f"{URL}{deployment.pk}/retry/", {"timeout": "2h"})
    second = api.post(f"{URL}{deployment.pk}/retry/", {"timeout": "2h"})

    retry = Deployment.objects.get(retry_of=deployment)
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.headers["Location"] == f"http://testserver{URL}{retry.pk}/"
    assert (first.json()["id"], second.json()["id"]) == (retry.pk, retry.pk)
    assert (first.json()["retry_of"], retry.timeout_seconds) == (deployment.pk, 7200)


@pytest.mark.parametrize(("given", "seconds"), [("30m", 1800), (90, 90), (None, None)])
def test_rest_takes_a_time_out_and_a_roll_back(
    api: APIClient, given: object, seconds: int | None
) -> None:
    answer = api.post(URL, {**REQUEST, "timeout": given, "rollback": True})

    deployment = Deployment.objects.get()
    assert answer.status_code == 202
    assert (deployment.timeout_seconds, deployment.rollback) == (seconds, True)
    assert answer.json()["rollback"] is True
    assert deployment.deadline is not None
    assert answer.json()["deadline"] == deployment.deadline.isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize("given", ["soon", 0, True, [30], "31d"])
def test_rest_refuses_what_is_no_length_of_time(api: APIClient, given: object) -> None:
    answer = api.post(URL, {**REQUEST, "timeout": given})

    assert (answer.status_code, list(answer.json())) == (400, ["timeout"])
    assert "is no length of time" in answer.json()["timeout"][0]
    assert not Deployment.objects.exists()


def test_a_teardown_is_not_rolled_back(api: APIClient) -> None:
    asked = {"kind": "teardown", "application": "shop", "environment": "dev", "rollback": True}

    answer = api.post(URL, asked)

    assert (answer.status_code, answer.json()) == (400, {"rollback": ["A teardown takes none."]})
    assert not Deployment.objects.exists()
