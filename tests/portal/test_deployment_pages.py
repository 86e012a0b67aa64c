from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from provisioning.models import Deployment
from tests.provisioning.place import Place

DATABASE = "  db:\n    type: postgres\n"
HTMX = {"HX-Request": "true"}


@pytest.fixture
def shop(place: Place, alice: User) -> Place:
    """Return a place where alice's team has the application shop."""
    place.template(
        "postgres",
        outputs={"host": False, "password": True},
        config={"outputs": {"host": "db.internal", "password": "s3cret-pw"}},
    )
    place.application("shop", alice)
    return place


@pytest.fixture
def browser(client: Client, alice: User) -> Client:
    """Return a client in which alice is logged in."""
    client.force_login(alice)
    return client


def text_of(client: Client, url: str, **headers: str) -> str:
    answer = client.get(url, headers=headers)
    assert answer.status_code == 200
    return answer.content.decode()


def test_home_leads_to_the_list(browser: Client) -> None:
    assert browser.get("/").headers["Location"] == "/deployments/"


def test_strangers_are_sent_to_the_login(client: Client, db: None) -> None:
    answer = client.get("/deployments/")

    assert answer.status_code == 302
    assert answer.headers["Location"] == "/accounts/login/?next=/deployments/"
    assert b"User name" in client.get(answer.headers["Location"]).content


def test_a_fragment_of_a_lost_session_renews_the_whole_page(client: Client, db: None) -> None:
    answer = client.get("/deployments/", headers=HTMX)

    assert answer.headers["HX-Refresh"] == "true"
    assert answer.content == b""


def test_logging_in_with_a_wrong_password_says_so(client: Client, alice: User) -> None:
    answer = client.post("/accounts/login/", {"username": "alice", "password": "wrong"})

    assert b"do not belong together" in answer.content


def test_the_list_shows_deployments_newest_first(browser: Client, shop: Place) -> None:
    first, second = shop.deploy(DATABASE), shop.deploy(DATABASE)

    html = text_of(browser, "/deployments/")

    assert re.findall(r">#(\d+)<", html) == [str(second.pk), str(first.pk)]
    assert "succeeded" in html


def test_the_list_is_filtered(browser: Client, shop: Place) -> None:
    done = shop.deploy(DATABASE)
    failed = shop.deploy("  db:\n    type: postgres\n    params: {fail: Broken, permanent: true}\n")

    html = text_of(browser, "/deployments/?status=failed")

    assert re.findall(r">#(\d+)<", html) == [str(failed.pk)]
    assert done.pk != failed.pk
    assert "match this filter" in text_of(browser, "/deployments/?application=other")


def test_htmx_is_given_the_rows_alone(browser: Client, shop: Place) -> None:
    shop.deploy(DATABASE)

    html = text_of(browser, "/deployments/", **HTMX)

    assert html.lstrip().startswith('<div id="rows"')
    assert "<html" not in html


def test_going_back_in_the_history_gives_the_whole_page(browser: Client) -> None:
    html = text_of(browser, "/deployments/", **HTMX, **{"HX-History-Restore-Request": "true"})

    assert "<html" in html


@pytest.mark.parametrize("query", ["application=%00", "status=%00x", "page=zzz", "page=-1"])
def test_a_strange_query_still_gives_the_list(browser: Client, query: str) -> None:
    assert "<html" in text_of(browser, f"/deployments/?{query}")


def test_a_number_beyond_all_numbers_is_not_there(browser: Client) -> None:
    assert browser.get(f"/deployments/{10**30}/").status_code == 404


def test_others_deployments_are_not_there(client: Client, shop: Place, bob: User) -> None:
    deployment = shop.deploy(DATABASE)
    step = deployment.steps.get()
    client.force_login(bob)

    assert "No deployments yet" in text_of(client, "/deployments/")
    for url in ("", "status/", f"steps/{step.pk}/log/", "log/", "log/pane/"):
        assert client.get(f"/deployments/{deployment.pk}/{url}").status_code == 404


def test_the_page_shows_plan_steps_resources_and_no_secret(browser: Client, shop: Place) -> None:
    deployment = shop.deploy(DATABASE)

    html = text_of(browser, f"/deployments/{deployment.pk}/")

    assert "postgres.default#web.db" in html
    assert "postgres-template@1.0.0" in html
    assert "Used by shop/web.db" in html
    assert "db.internal" in html
    assert "••••••" in html
    assert "s3cret-pw" not in html


def test_an_error_and_what_it_blocked_are_shown(browser: Client, shop: Place) -> None:
    deployment = shop.deploy(
        "  db:\n    type: postgres\n    params: {fail: <b>No quota</b>, permanent: true}\n"
        "  cache:\n    type: postgres\n    params: {at: '${resources.db.host}'}\n"
    )

    html = text_of(browser, f"/deployments/{deployment.pk}/")

    assert "&lt;b&gt;No quota&lt;/b&gt;" in html
    assert "<b>No quota" not in html
    assert "Blocked by private/shop/web/db/postgres.default" in html


def test_the_status_is_given_until_it_was_seen(browser: Client, shop: Place) -> None:
    deployment = shop.submit(DATABASE)
    url = f"/deployments/{deployment.pk}/status/"
    page = text_of(browser, f"/deployments/{deployment.pk}/")
    assert 'hx-trigger="renew"' in page
    assert "live.js" in page

    going_on = browser.get(url, headers=HTMX)
    seen = re.search(r'name="seen" value="(\w+)"', going_on.content.decode())
    assert seen
    assert f'value="{seen[1]}"' in page
    assert browser.get(url, {"seen": seen[1]}, headers=HTMX).status_code == 204

    shop.done(deployment)
    ended = browser.get(url, {"seen": seen[1]}, headers=HTMX)

    assert ended.status_code == 200
    assert b"succeeded" in ended.content
    assert b"data-ended" in ended.content
    page = text_of(browser, f"/deployments/{deployment.pk}/")
    assert "hx-trigger" not in page
    assert "live.js" not in page


def test_without_scripts_the_page_of_what_goes_on_renews_itself(
    browser: Client, shop: Place
) -> None:
    deployment = shop.submit(DATABASE)
    renews = '<noscript><meta http-equiv="refresh"'
    assert renews in text_of(browser, f"/deployments/{deployment.pk}/")

    shop.done(deployment)

    assert renews not in text_of(browser, f"/deployments/{deployment.pk}/")


def test_pages_may_run_nothing_but_what_is_served(browser: Client, shop: Place) -> None:
    deployment = shop.deploy(DATABASE)

    answer = browser.get(f"/deployments/{deployment.pk}/")

    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]* src=)|<style|style=|onclick=", answer.content.decode())


def test_queries_do_not_grow_with_the_list(
    browser: Client, shop: Place, django_assert_max_num_queries: Any
) -> None:
    for _ in range(4):
        shop.deploy(DATABASE)

    # session, user, maintenance, applications, environments, count, rows
    with django_assert_max_num_queries(7):
        browser.get("/deployments/")


def test_queries_do_not_grow_with_the_resources(
    browser: Client, shop: Place, django_assert_max_num_queries: Any
) -> None:
    resources = "".join(f"  db{number}:\n    type: postgres\n" for number in range(6))
    deployment = shop.deploy(resources)

    # session, user, deployment, approvals, wishes, steps, resources + 2; of the log steps, ends, chunks; maintenance
    with django_assert_max_num_queries(13):
        browser.get(f"/deployments/{deployment.pk}/")
    assert Deployment.objects.count() == 1


def test_the_page_says_whose_wish_is_not_met(browser: Client, shop: Place) -> None:
    shop.template("queue", merge_rules={"runtime": {"rule": "priority"}})
    wish = "  jobs:\n    type: queue\n    reference: {mode: shared, name: jobs}\n"
    shop.deploy(wish + "    priority: 5\n    params: {runtime: '20'}\n", workload="api")
    deployment = shop.deploy(wish + "    params: {runtime: '18'}\n")

    html = text_of(browser, f"/deployments/{deployment.pk}/")

    assert "Not as shop/web.jobs asks: <code>runtime</code> is" in html


def test_a_changed_plan_is_confirmed_on_the_page(browser: Client, shop: Place) -> None:
    shared = "  cache:\n    type: postgres\n    reference: {mode: shared, name: cache}\n"
    shop.submit(shared + DATABASE)
    changed = shop.submit(DATABASE)
    shop.deploy(shared, application="billing")
    url = f"/deployments/{changed.pk}/"
    assert f'action="{url}confirm/"' in text_of(browser, url)

    answer = browser.post(f"{url}confirm/")

    assert answer.headers["Location"] == url
    assert shop.done(changed).status == "succeeded"
    assert f'action="{url}confirm/"' not in text_of(browser, url)


def test_confirming_what_asks_for_nothing_says_so(browser: Client, shop: Place) -> None:
    deployment = shop.deploy(DATABASE)

    page = browser.post(f"/deployments/{deployment.pk}/confirm/", follow=True)

    assert "asks for no confirmation" in page.content.decode()


def test_others_cannot_confirm(client: Client, bob: User, shop: Place) -> None:
    deployment = shop.deploy(DATABASE)
    client.force_login(bob)

    assert client.post(f"/deployments/{deployment.pk}/confirm/").status_code == 404


def test_the_page_tells_the_wishes_that_are_not_met(browser: Client, shop: Place) -> None:
    checks = [{"condition": "outputs.room >= wish.room", "message": "It has less room."}]
    shop.template("disk", outputs={"room": False}, config={"outputs": {"room": 5}}, checks=checks)
    deployment = shop.deploy("  disk:\n    type: disk\n    params: {room: 9}\n")

    html = text_of(browser, f"/deployments/{deployment.pk}/")

    assert "is not as it asked: It has less room (outputs.room is 5, wish.room is 9)." in html
