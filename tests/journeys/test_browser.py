from __future__ import annotations

import os
from collections.abc import Generator

import pytest
from django.contrib.auth.models import User
from django.db import connections
from playwright.sync_api import Page, expect, sync_playwright
from pytest_django.live_server_helper import LiveServer

from tests.conftest import find_browser
from tests.provisioning.conftest import ledger, place
from tests.provisioning.place import Place

__all__ = ["ledger", "place"]

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


def test_a_person_logs_in_and_watches_a_deployment_finish(
    live_server: LiveServer, page: Page, place: Place, alice: User
) -> None:
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    place.template(
        "postgres",
        outputs={"password": True},
        config={"outputs": {"password": "s3cret-pw"}},
    )
    place.application("shop", alice)
    deployment = place.submit("  db:\n    type: postgres\n")

    page.goto(live_server.url)
    page.get_by_label("User name").fill("alice")
    page.get_by_label("Password").fill("alice")
    page.get_by_role("button", name="Log in").click()
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
    expect(page.locator("#live")).not_to_have_attribute("hx-trigger", "every 1s")
    assert "s3cret-pw" not in page.content()
    page.get_by_role("link", name="Log of postgres.default#web.db").click()
    expect(page.locator("pre.log")).to_contain_text("postgres.default#web.db")
    assert complaints == []
