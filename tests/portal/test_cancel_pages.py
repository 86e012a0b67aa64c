from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

from provisioning.models import Deployment
from tests.provisioning.place import Place

DATABASE = "  db:\n    type: postgres\n"
FAILS = "  db:\n    type: postgres\n    params: {fail: The quota is used up., permanent: true}\n"
HTMX = {"HX-Request": "true"}


@pytest.fixture
def shop(place: Place, alice: User) -> Place:
    """Return a place where alice's team has the application shop."""
    place.template("postgres", outputs={"host": False})
    place.application("shop", alice)
    return place


@pytest.fixture
def browser(client: Client, alice: User) -> Client:
    """Return a client in which alice is logged in."""
    client.force_login(alice)
    return client


def fresh(deployment: Deployment) -> Deployment:
    deployment.refresh_from_db()
    return deployment


def test_the_page_asks_before_it_cancels(browser: Client, shop: Place) -> None:
    deployment = shop.submit(DATABASE)
    url = f"/deployments/{deployment.pk}/"

    html = browser.get(url).content.decode()

    assert f'hx-post="{url}cancel/"' in html
    assert f'hx-confirm="Cancel deployment {deployment.pk}?' in html
    assert "It is stopped if it is not done by <time" in html


def test_htmx_is_given_the_live_part_of_what_it_cancelled(browser: Client, shop: Place) -> None:
    deployment = shop.submit(DATABASE)
    url = f"/deployments/{deployment.pk}/"

    answer = browser.post(f"{url}cancel/", headers=HTMX)

    html = answer.content.decode()
    assert answer.status_code == 200
    assert html.lstrip().startswith('<input type="hidden" name="seen"')
    assert "Cancelled by alice." in html
    assert f"{url}cancel/" not in html
    assert f'action="{url}retry/"' in html
    assert fresh(deployment).status == "cancelled"


def test_without_javascript_cancelling_leads_back_to_the_page(browser: Client, shop: Place) -> None:
    deployment = shop.submit(DATABASE)

    answer = browser.post(f"/deployments/{deployment.pk}/cancel/")

    assert answer.headers["Location"] == f"/deployments/{deployment.pk}/"
    assert fresh(deployment).status == "cancelled"


def test_what_cannot_be_cancelled_is_told_on_the_page(browser: Client, shop: Place) -> None:
    deployment = shop.deploy(DATABASE)
    url = f"/deployments/{deployment.pk}/cancel/"
    told = "has ended already (succeeded)"

    assert told in browser.post(url, headers=HTMX).content.decode()
    assert told in browser.post(url, follow=True).content.decode()


def test_retrying_leads_to_the_new_deployment_and_is_linked(browser: Client, shop: Place) -> None:
    deployment = shop.submit(DATABASE)
    url = f"/deployments/{deployment.pk}/"
    browser.post(f"{url}cancel/")

    answer = browser.post(f"{url}retry/")

    retry = Deployment.objects.get(retry_of=deployment)
    assert answer.headers["Location"] == f"/deployments/{retry.pk}/"
    old, new = browser.get(url), browser.get(f"/deployments/{retry.pk}/")
    assert f'<a href="/deployments/{retry.pk}/">deployment #{retry.pk}</a>' in old.content.decode()
    assert f"{url}retry/" not in old.content.decode()
    assert f'<dd><a href="{url}">#{deployment.pk}</a></dd>' in new.content.decode()


def test_what_a_newer_one_has_overtaken_offers_no_retry(browser: Client, shop: Place) -> None:
    failed = shop.deploy(FAILS)
    shop.deploy(DATABASE)
    url = f"/deployments/{failed.pk}/"

    assert f"{url}retry/" not in browser.get(url).content.decode()
    page = browser.post(f"{url}retry/", follow=True).content.decode()
    assert "is not the newest of its application and environment" in page
    assert Deployment.objects.count() == 2


def test_the_page_shows_that_roll_back_is_on_and_what_became_of_it(
    browser: Client, shop: Place
) -> None:
    deployment = shop.deploy(FAILS, rollback=True)
    rollback = deployment.rollbacks.get()

    html = browser.get(f"/deployments/{deployment.pk}/").content.decode()
    its = browser.get(f"/deployments/{rollback.pk}/").content.decode()

    assert "on: if it does not succeed, what it creates is destroyed again" in html
    assert f"Deployment {rollback.pk} destroys again what it created" in html
    assert f'<dd><a href="/deployments/{deployment.pk}/">#{deployment.pk}</a></dd>' in its


@pytest.mark.parametrize("action", ["cancel", "retry"])
def test_others_find_no_page_to_act_on(client: Client, shop: Place, bob: User, action: str) -> None:
    deployment = shop.submit(DATABASE)
    url = f"/deployments/{deployment.pk}/{action}/"

    assert client.post(url).status_code == 302  # to the login
    client.force_login(bob)
    assert client.post(url).status_code == 404
    assert client.get(url).status_code == 405
    assert fresh(deployment).status == "running"


def test_staff_cancel_several_in_the_admin(client: Client, shop: Place, charlie: User) -> None:
    charlie.is_staff = True
    charlie.save()
    client.force_login(charlie)
    done = shop.deploy(DATABASE)
    running = shop.submit(DATABASE, application="billing")

    page = client.post(
        "/admin/provisioning/deployment/",
        {"action": "cancel", "_selected_action": [done.pk, running.pk]},
        follow=True,
    ).content.decode()

    assert f"Deployment {done.pk} has ended already (succeeded)" in page
    assert f"Deployment {running.pk} is cancelled." in page
    assert fresh(running).status_reason.startswith("Cancelled by charlie.")
