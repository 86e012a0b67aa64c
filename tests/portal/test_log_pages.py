from __future__ import annotations

import json
import re

import pytest
from django.contrib.auth.models import User
from django.test import Client
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient

from portal.views import logs
from provisioning.models import LogChunk, Step
from tests.portal.serving import Portal, portal
from tests.provisioning.place import Place
from tests.provisioning.services.logs.saying import claimed, say

__all__ = ["portal"]

HTMX = {"HX-Request": "true"}
HTML = "<script>alert('log')</script>\n"


@pytest.fixture
def steps(place: Place, alice: User) -> list[Step]:
    """Return the running steps of a deployment that alice may see."""
    place.application("shop", alice)
    return claimed(place, 2)


@pytest.fixture
def browser(client: Client, alice: User) -> Client:
    """Return a client in which alice is logged in."""
    client.force_login(alice)
    return client


@pytest.fixture
def api(alice: User) -> APIClient:
    """Return a client that acts as alice, by token."""
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {Token.objects.create(user=alice).key}")
    return client


def page_of(client: Client, url: str, **query: object) -> str:
    answer = client.get(url, query)
    assert answer.status_code == 200
    return answer.content.decode()


def test_the_page_of_a_deployment_ends_with_what_its_steps_said(
    browser: Client, steps: list[Step]
) -> None:
    one, two = steps
    say(one, "first\n", HTML)
    say(two, "second\n")

    html = page_of(browser, f"/deployments/{one.deployment_id}/")

    turns = re.findall(r'<span class="log-turn" [^>]*>([^<]*)</span>', html)
    assert turns == [f"ensure {step.resource.uid} (attempt 1)" for step in steps]
    assert "&lt;script&gt;alert(&#x27;log&#x27;)" in html
    assert "<script>alert" not in html
    assert f'name="seen" value="{one.pk}:1.1,{two.pk}:1.0"' in html


def test_the_page_of_a_step_shows_its_log_alone(browser: Client, steps: list[Step]) -> None:
    one, two = steps
    say(one, "first\n")
    say(two, "second\n")
    url = f"/deployments/{one.deployment_id}/steps/{two.pk}/log/"

    html = page_of(browser, url)

    assert "second\n" in html
    assert "first\n" not in html
    assert f"log/pane/?step={two.pk}" in html
    part = browser.get(url, headers=HTMX).content.decode()
    assert "running" in part
    assert "second" not in part


def test_a_log_that_was_seen_is_not_given_again(browser: Client, steps: list[Step]) -> None:
    log = say(steps[0], "first\n")
    url = f"/deployments/{steps[0].deployment_id}/log/pane/"
    seen = re.search(r'name="seen" value="([^"]*)"', page_of(browser, url))
    assert seen
    assert browser.get(url, {"seen": seen[1]}).status_code == 204

    say(steps[0], "next\n", log=log)

    assert "next\n" in page_of(browser, url, seen=seen[1])


def test_of_a_long_log_the_page_shows_the_end(
    browser: Client, steps: list[Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "CHUNKS_SHOWN", 2)
    say(steps[0], "one\n", "two\n", "three\n")

    html = page_of(browser, f"/deployments/{steps[0].deployment_id}/")

    assert "one\n" not in html
    assert "two\n" in html
    assert '<p class="faint" id="log-shortened">Only the end is shown' in html


def test_a_log_is_downloaded_as_text(browser: Client, steps: list[Step]) -> None:
    one, two = steps
    say(one, "1a\n1b\n", HTML)
    say(two, "2a\n")
    url = f"/deployments/{one.deployment_id}/log/"

    whole, part = browser.get(url), browser.get(url, {"step": two.pk})

    headings = [f"ensure {step.resource.uid} (attempt 1)\n" for step in steps]
    assert whole.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert whole.headers["X-Content-Type-Options"] == "nosniff"
    assert whole.headers["Content-Disposition"] == (
        f'attachment; filename="deployment-{one.deployment_id}.log"'
    )
    assert whole.getvalue().decode() == (f"{headings[0]}  1a\n  1b\n  {HTML}{headings[1]}  2a\n")
    assert part.getvalue().decode() == f"{headings[1]}  2a\n"


@pytest.mark.parametrize("step", ["x", "0", "9" * 30, "-1"])
def test_a_step_that_is_not_there_has_no_log(browser: Client, steps: list[Step], step: str) -> None:
    for url in ("log/", "log/pane/"):
        answer = browser.get(f"/deployments/{steps[0].deployment_id}/{url}", {"step": step})
        assert answer.status_code == 404


def test_rest_gives_the_log_as_text_and_as_lines_of_json(api: APIClient, steps: list[Step]) -> None:
    one, two = steps
    say(one, "1a\n", HTML)
    say(two, "2a\n")
    url = f"/api/v1/deployments/{one.deployment_id}/log/"

    text, lines = api.get(url, {"step": two.pk}), api.get(url, {"format": "json"})

    assert text.getvalue().decode() == f"ensure {two.resource.uid} (attempt 1)\n  2a\n"
    assert lines.headers["Content-Type"] == "application/x-ndjson"
    chunks = [json.loads(line) for line in lines.getvalue().decode().splitlines()]
    assert [(chunk["step"], chunk["attempt"], chunk["text"]) for chunk in chunks] == [
        (one.pk, 1, "1a\n"),
        (one.pk, 1, HTML),
        (two.pk, 1, "2a\n"),
    ]
    assert chunks[0]["at"] == LogChunk.objects.earliest("pk").created_at.isoformat()


@pytest.mark.parametrize(
    ("query", "status"),
    [({"format": "xml"}, 400), ({"step": "x"}, 400), ({"foot": 1}, 400), ({"step": 9**9}, 404)],
)
def test_rest_refuses_what_it_does_not_know(
    api: APIClient, steps: list[Step], query: dict[str, object], status: int
) -> None:
    answer = api.get(f"/api/v1/deployments/{steps[0].deployment_id}/log/", query)

    assert answer.status_code == status


def test_others_get_no_log_over_rest(steps: list[Step], bob: User) -> None:
    url = f"/api/v1/deployments/{steps[0].deployment_id}/log/"
    stranger = APIClient()
    assert stranger.get(url).status_code == 401

    stranger.force_authenticate(bob)

    assert stranger.get(url).status_code == 404


@pytest.mark.django_db(transaction=True)
def test_a_download_is_the_same_from_an_asgi_server(
    portal: Portal, steps: list[Step], alice: User
) -> None:
    say(steps[0], *(f"{number}\n" for number in range(50)))

    text = portal.get(f"/deployments/{steps[0].deployment_id}/log/", alice)

    assert text.splitlines()[1:] == [f"  {number}" for number in range(50)]
