from __future__ import annotations

import os
from collections.abc import Generator

import pytest
from django.contrib.auth.models import User
from django.db import connections
from playwright.sync_api import Page, expect, sync_playwright
from pytest_django.live_server_helper import LiveServer

from provisioning.services.deployments import end, finish
from tests.conftest import find_browser
from tests.portal.serving import Portal, portal
from tests.provisioning.conftest import ledger, place
from tests.provisioning.place import Place
from tests.provisioning.services.logs.saying import claimed, next_attempt, say

__all__ = ["ledger", "place", "portal"]

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Generator[Page]:
    """Return a page of a real Chromium."""
    # Playwright's loop runs in this thread, and Django would refuse the database beside it.
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=find_browser(), args=arguments)
        yield chromium.new_page()
        chromium.close()
        # Beside the loop Django keeps other connections than before and after it.
        connections.close_all()


def complaints_of(page: Page) -> list[str]:
    """Return the list to which the page's errors will be added."""
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return complaints


def log_in(page: Page, url: str) -> None:
    page.goto(url)
    page.get_by_label("User name").fill("alice")
    page.get_by_label("Password").fill("alice")
    page.get_by_role("button", name="Log in").click()


def test_a_person_logs_in_and_watches_a_deployment_finish(
    live_server: LiveServer, page: Page, place: Place, alice: User
) -> None:
    complaints = complaints_of(page)
    place.template(
        "postgres",
        outputs={"password": True},
        config={"outputs": {"password": "s3cret-pw"}},
    )
    place.application("shop", alice)
    deployment = place.submit("  db:\n    type: postgres\n")

    log_in(page, live_server.url)
    page.get_by_label("Status").select_option("failed")
    expect(page.get_by_text("No deployments match this filter")).to_be_visible()
    page.go_back()
    page.get_by_role("link", name=f"#{deployment.pk}").click()
    status = page.get_by_role("status")
    expect(status).to_have_text("running")
    expect(page.get_by_role("cell", name="pending")).to_be_visible()

    place.done(deployment)

    expect(status).to_have_text("succeeded")
    expect(page.get_by_text("Used by shop/web.db")).to_be_visible()
    expect(page.locator("pre.log")).to_contain_text("Pretending to work on")
    assert "s3cret-pw" not in page.content()
    page.get_by_role("link", name="Log of postgres.default#web.db").click()
    expect(page.locator("pre.log")).to_contain_text("postgres.default#web.db")
    assert complaints == []


def test_a_person_sees_what_is_said_as_it_is_said(
    portal: Portal, page: Page, place: Place, alice: User
) -> None:
    complaints = complaints_of(page)
    place.application("shop", alice)
    one, two = claimed(place, 2)
    number = one.deployment_id
    log_in(page, portal.url)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.split("?")[0]))
    page.goto(f"{portal.url}/deployments/{number}/")
    expect(page.locator("#log-state")).to_have_text("live")

    first = say(one, "hello\n")
    say(two, "<img src=x onerror=alert(1)>\n")
    shown = page.locator("pre.log")
    expect(shown).to_contain_text("hello")
    expect(shown).to_contain_text("<img src=x onerror=alert(1)>")
    say(one, *(f"line {number}\n" for number in range(200)), log=first)
    expect(shown).to_contain_text("line 199")
    say(next_attempt(two), "again\n")
    expect(shown.locator(".log-turn").last).to_have_text(f"ensure {two.resource.uid} (attempt 2)")
    expect(page.get_by_role("cell", name="attempt 2")).to_be_visible()
    for step in (one, two):
        finish.finish_unchanged(step, "")
        end.advance(number)

    expect(page.get_by_role("status")).to_have_text("succeeded")
    expect(page.locator("#log-state")).to_have_text("")
    assert shown.inner_text().count("line 7\n") == 1
    assert asked.count(f"{portal.url}/deployments/{number}/log/events/") == 1
    assert f"{portal.url}/deployments/{number}/log/pane/" not in asked
    assert complaints == []


def test_a_page_that_was_cut_off_goes_on_where_it_was(
    portal: Portal, page: Page, place: Place, alice: User
) -> None:
    place.application("shop", alice)
    (step,) = claimed(place)
    log = say(step, "before\n")
    log_in(page, portal.url)
    page.goto(f"{portal.url}/deployments/{step.deployment_id}/steps/{step.pk}/log/")
    shown = page.locator("pre.log")
    expect(page.locator("#log-state")).to_have_text("live")
    page.context.set_offline(True)
    say(step, "meanwhile\n", log=log)
    page.context.set_offline(False)
    say(step, "after\n", log=log)

    expect(shown).to_contain_text("after")
    assert [line for line in shown.inner_text().splitlines() if line][1:] == [
        "before",
        "meanwhile",
        "after",
    ]


def test_a_person_cancels_a_deployment_and_retries_it(
    live_server: LiveServer, page: Page, place: Place, alice: User
) -> None:
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.accept()))
    place.template("postgres")
    place.application("shop", alice)
    deployment = place.submit("  db:\n    type: postgres\n")

    log_in(page, live_server.url)
    page.goto(f"{live_server.url}/deployments/{deployment.pk}/")
    page.get_by_role("button", name="Cancel this deployment").click()

    expect(page.get_by_role("status")).to_have_text("cancelled")
    expect(page.get_by_text("Cancelled by alice.")).to_be_visible()
    assert [text.split("?")[0] for text in asked] == [f"Cancel deployment {deployment.pk}"]
    page.get_by_role("button", name="Retry what is not done").click()
    retry = deployment.retries.get()
    expect(page).to_have_url(f"{live_server.url}/deployments/{retry.pk}/")
    expect(page.get_by_role("status")).to_have_text("running")
    page.get_by_role("link", name=f"#{deployment.pk}").click()
    expect(page.get_by_role("link", name=f"deployment #{retry.pk}")).to_be_visible()
