from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient

from provisioning.models import Deployment, Resource
from tests.provisioning.place import Place, score_file

URL = "/api/v1/deployments/"
SCORE = score_file("web", "  db:\n    type: postgres\n")
REQUEST = {"application": "shop", "environment": "dev", "score": SCORE}


@pytest.fixture
def shop(place: Place, alice: User) -> Place:
    """Return a place where alice's team has the application shop."""
    place.template(
        "postgres", outputs={"password": True}, config={"outputs": {"password": "s3cret-pw"}}
    )
    place.application("shop", alice)
    return place


def client_of(user: User) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {Token.objects.create(user=user).key}")
    return client


@pytest.fixture
def api(shop: Place, alice: User) -> APIClient:
    """Return a client that acts as alice, by token."""
    return client_of(alice)


def test_a_deployment_is_accepted_and_can_be_looked_at(api: APIClient, alice: User) -> None:
    answer = api.post(URL, {**REQUEST, "commit": "abc"})

    deployment = Deployment.objects.get()
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"http://testserver{URL}{deployment.pk}/"
    assert answer.json()["status"] == "running"
    assert (deployment.requested_by, deployment.commit) == (alice, "abc")
    seen = api.get(answer.headers["Location"])
    assert seen.status_code == 200
    assert seen.json()["plan"]["resources"][0]["action"] == "create"
    assert [(step["resource"], step["status"]) for step in seen.json()["steps"]] == [
        ("postgres.default#web.db", "pending")
    ]


@pytest.mark.parametrize(("given", "stored"), [("low", -10), ("normal", 0), (-7, -7)])
def test_a_priority_is_given(api: APIClient, given: Any, stored: int) -> None:
    answer = api.post(URL, {**REQUEST, "priority": given})

    assert (answer.status_code, answer.json()["priority"]) == (202, stored)


@pytest.mark.parametrize(("given", "status"), [("urgent", 400), (1000, 400), ("high", 403)])
def test_a_priority_that_cannot_be_given_is_refused(
    api: APIClient, given: Any, status: int
) -> None:
    answer = api.post(URL, {**REQUEST, "priority": given})

    assert answer.status_code == status
    assert "priority" in answer.content.decode()
    assert not Deployment.objects.exists()


def test_shrinking_is_asked_for(api: APIClient) -> None:
    answer = api.post(URL, {**REQUEST, "shrink": True})

    assert answer.status_code == 202
    assert Deployment.objects.get().shrink is True


def test_a_teardown_takes_no_shrink(api: APIClient) -> None:
    asked = {"kind": "teardown", "application": "shop", "environment": "dev", "shrink": True}

    answer = api.post(URL, asked)

    assert (answer.status_code, answer.json()) == (400, {"shrink": ["A teardown takes none."]})
    assert not Deployment.objects.exists()


def test_the_end_is_seen_and_no_secret_is(api: APIClient, shop: Place) -> None:
    number = api.post(URL, REQUEST).json()["id"]
    shop.done(Deployment.objects.get())

    answer = api.get(f"{URL}{number}/")

    assert answer.json()["status"] == "succeeded"
    assert answer.json()["steps"][0]["driver_ran"] is True
    assert "s3cret-pw" not in answer.content.decode()


def test_several_files_are_deployed_together(api: APIClient) -> None:
    files = [
        {"name": f"{name}.yaml", "text": score_file(name, "  db:\n    type: postgres\n")}
        for name in ("web", "api")
    ]

    answer = api.post(URL, {"application": "shop", "environment": "dev", "files": files})

    assert answer.status_code == 202
    assert answer.json()["workloads"] == ["api", "web"]


def test_a_teardown_is_accepted(api: APIClient, shop: Place) -> None:
    shop.deploy("  db:\n    type: postgres\n")

    answer = api.post(
        URL,
        {"kind": "teardown", "application": "shop", "environment": "dev", "workloads": ["web"]},
    )

    assert answer.status_code == 202
    assert answer.json()["kind"] == "teardown"
    shop.done(Deployment.objects.get(pk=answer.json()["id"]))
    assert set(shop.states().values()) == {"deleted"}


def test_every_problem_of_a_refused_file_is_told_with_its_place(api: APIClient) -> None:
    score = score_file("web", "  db:\n    type: mongo\n  cache:\n    type: redis\n")

    answer = api.post(URL, {**REQUEST, "score": score})

    assert answer.status_code == 400
    problems = answer.json()["problems"]
    assert [(each["file"], each["line"]) for each in problems] == [
        ("score.yaml", 9),
        ("score.yaml", 11),
    ]
    assert set(problems[0]) == {"file", "line", "column", "path", "message", "hint"}
    assert not Deployment.objects.exists()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"score": None}, "score"),
        ({"environment": "prod"}, "environment"),
        ({"scores": "x"}, "scores"),
        ({"kind": "maintenance"}, "kind"),
        ({"workloads": ["web"]}, "workloads"),
        ({"files": [{"name": "a", "text": "b"}]}, "score"),
        ({"kind": "teardown"}, "score"),
        ({"files": [], "score": None}, "files"),
    ],
)
def test_a_wrong_request_names_the_field(
    api: APIClient, change: dict[str, Any], field: str
) -> None:
    body = {name: value for name, value in {**REQUEST, **change}.items() if value is not None}

    answer = api.post(URL, body)

    assert answer.status_code == 400
    assert field in answer.json()
    assert not Deployment.objects.exists()


def test_a_stranger_finds_nothing(api: APIClient, bob: User) -> None:
    number = api.post(URL, REQUEST).json()["id"]
    stranger = client_of(bob)

    submitted = stranger.post(URL, REQUEST)

    assert submitted.status_code == 404
    assert submitted.json() == {"detail": "There is no application shop."}
    assert stranger.get(f"{URL}{number}/").status_code == 404
    assert stranger.get(URL).json()["results"] == []
    assert Deployment.objects.count() == 1


def test_staff_see_everything(api: APIClient, charlie: User) -> None:
    number = api.post(URL, REQUEST).json()["id"]
    charlie.is_staff = True
    charlie.save()

    assert client_of(charlie).get(f"{URL}{number}/").status_code == 200


def test_nobody_enters_without_a_token(shop: Place) -> None:
    assert APIClient().post(URL, REQUEST).status_code == 401
    assert APIClient().get(URL).status_code == 401
    assert not Resource.objects.exists()


def test_the_list_is_paged_newest_first_and_filtered(api: APIClient, shop: Place) -> None:
    first = shop.deploy("  db:\n    type: postgres\n").pk
    second = shop.deploy("  db:\n    type: postgres\n").pk

    page = api.get(URL, {"limit": 1}).json()

    assert page["count"] == 2
    assert [each["id"] for each in page["results"]] == [second]
    assert page["next"].endswith("limit=1&offset=1")
    assert api.get(URL, {"status": "failed"}).json()["count"] == 0
    assert api.get(URL, {"application": "shop", "status": "succeeded"}).json()["count"] == 2
    assert first < second


def test_queries_do_not_grow_with_the_list(
    api: APIClient, shop: Place, django_assert_num_queries: Any
) -> None:
    api.get(URL)
    for _ in range(3):
        shop.deploy("  db:\n    type: postgres\n")

    with django_assert_num_queries(3):  # the token, the count and the rows
        assert len(api.get(URL).json()["results"]) == 3


def test_a_strange_query_is_no_failure_of_the_server(api: APIClient) -> None:
    assert api.get(f"{URL}?application=%00").status_code == 200
    assert api.get(f"{URL}{10**30}/").status_code == 404
    assert api.post(URL, ["no", "object"]).status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        '{"application": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"application": "shop", "environment": "dev", "kind": "\\ud800"}',
        '{"\\ud800": 1}',
        '{"application": ',
    ],
)
def test_a_body_that_cannot_be_read_is_refused_with_a_sentence(api: APIClient, body: str) -> None:
    answer = api.post(URL, body, content_type="application/json")

    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("JSON parse error - ")
    assert not Deployment.objects.exists()


def test_a_body_that_is_too_large_is_refused_with_its_limit(api: APIClient) -> None:
    answer = api.post(URL, {**REQUEST, "commit": "x" * 3_000_000})

    assert answer.status_code == 413
    assert answer.json() == {"detail": "A request has 2,621,440 bytes at most."}
    assert not Deployment.objects.exists()


def test_a_score_file_that_cannot_be_stored_is_refused(api: APIClient) -> None:
    score = score_file("web", '  db:\n    type: postgres\n    params: {a: "b\\0c"}\n')
    answer = api.post(URL, {**REQUEST, "score": score})

    assert answer.status_code == 400
    assert [problem["path"] for problem in answer.json()["problems"]] == ["resources.db.params.a"]
    assert not Deployment.objects.exists()


def test_an_endless_page_is_limited(api: APIClient) -> None:
    assert api.get(URL, {"limit": "9" * 30}).status_code == 200


def test_the_wishes_that_are_not_met_are_told(api: APIClient, shop: Place) -> None:
    checks = [{"condition": "outputs.room >= wish.room", "message": "It has less room."}]
    shop.template("disk", outputs={"room": False}, config={"outputs": {"room": 5}}, checks=checks)
    deployment = shop.deploy("  disk:\n    type: disk\n    params: {room: 9}\n")

    (told,) = api.get(f"{URL}{deployment.pk}/").json()["wishes_not_met"]

    assert told.endswith("It has less room (outputs.room is 5, wish.room is 9).")
