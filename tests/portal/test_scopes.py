"""Sharing across environments and organisations, as the commands, REST and the pages show it."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.test import Client
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient

from provisioning.models import Deployment, Resource, ResourceConsumer
from provisioning.services.people import system_user
from provisioning.services.publishing import publish_resource
from tests.portal.commands import Ran, run
from tests.provisioning.place import Place, new_place, score_file

WIDE = """\
  cache:
    type: cache
    matching: {scope: organisation}
    params: {size: 1}
"""


@pytest.fixture
def staging(place: Place) -> Place:
    """Return the environment staging, whose application pay has a cache."""
    staging = place.beside("staging")
    place.template("cache", outputs={"host": False}, merge_rules={"size": {"rule": "maximum"}})
    staging.deploy(WIDE, application="pay")
    return staging


def share(*arguments: str, organisation: str = "acme") -> Ran:
    key = Resource.objects.get().key
    action, *more = arguments
    return run("share", action, key, "--env", "staging", "--organisation", organisation, *more)


def test_a_plan_names_the_environment_of_what_it_finds(staging: Place, tmp_path: Path) -> None:
    staging.application("shop")
    wish = WIDE.replace("organisation}", "organisation, matchOn: []}").replace("size: 1", "size: 2")
    (tmp_path / "score.yaml").write_text(score_file("web", wish))
    ran = run("plan", str(tmp_path / "score.yaml"), "--app", "shop", "--env", "dev", "--explain")

    cache = Resource.objects.get()
    assert ran.status == 0, ran.err
    assert f"~ update    {cache.uid} (cache-template@1.0.0) in acme/staging" in ran.out
    assert (
        f"✓ {cache.name} of the team everybody in acme/staging for web.cache taken: the best-ranked"
    ) in ran.out
    assert "also used by acme/staging/pay/web" in ran.out
    changed = f"Changes what acme/staging/pay/web of the team everybody uses: {cache.uid}."
    assert changed in ran.out


def test_publishing_is_said_and_shown(staging: Place) -> None:
    published = share("publish")
    assert (published.status, published.out) == (
        0,
        f"{Resource.objects.get().key}: other organisations can find it.\n",
    )
    shown = run("shared", "inspect", Resource.objects.get().key, "--organisation", "acme")
    assert "Kept:        published" in shown.out

    assert share("unpublish").out.endswith("other organisations find it no more.\n")
    assert not Resource.objects.get().published


def test_publishing_is_refused_to_owners(staging: Place, charlie: User) -> None:
    staging.team_named("everybody", charlie)
    ran = share("publish", "--as", "charlie")

    assert (ran.status, "may not publish a resource across organisations" in ran.err) == (1, True)
    assert not Resource.objects.get().published


def test_consumers_of_other_environments_are_listed_and_put_out(staging: Place) -> None:
    dev = staging.beside("dev")
    dev.deploy(WIDE, application="pay")

    shown = run("shared", "inspect", Resource.objects.get().key)
    assert "  - pay/web as cache" in shown.out
    assert "  - acme/dev/pay/web as cache" in shown.out
    revoke = ("revoke", "--app", "pay", "--workload", "web", "--reason", "Enough.")
    ran = share(*revoke, "--from", "dev")

    assert (ran.status, "Revoked web.cache of pay." in ran.out) == (0, True)
    states = ResourceConsumer.objects.values_list("workload__environment__name", "state")
    assert dict(states) == {"staging": "active", "dev": "revoked"}
    assert "pay/web in dev does not use" in share(*revoke, "--from", "acme/dev").err


def test_a_consumer_of_another_organisation_is_put_out_by_its_path(staging: Place) -> None:
    rival = new_place("rival")
    publish_resource(resource=Resource.objects.get(), published=True, actor=system_user())
    Resource.objects.update(sharing_policy="open")
    rival.deploy(WIDE.replace("organisation", "global"), application="spy")
    revoke = ("revoke", "--app", "spy", "--workload", "web", "--reason", "Enough.")

    assert "There is no application spy" in share(*revoke).err
    assert share(*revoke, "--from", "rival/dev").status == 0
    assert ResourceConsumer.objects.get(crosses=True).state == "revoked"


def test_rest_and_the_page_tell_where_the_resource_is(
    staging: Place, alice: User, client: Client
) -> None:
    dev = staging.beside("dev")
    dev.application("shop", alice)
    api = APIClient()
    api.credentials(HTTP_AUTHORIZATION=f"Token {Token.objects.create(user=alice).key}")
    answer = api.post(
        "/api/v1/deployments/",
        {"application": "shop", "environment": "dev", "score": score_file("web", WIDE)},
    )

    assert answer.status_code == 202
    deployment = Deployment.objects.get(pk=answer.json()["id"])
    dev.done(deployment)
    seen = api.get(f"/api/v1/deployments/{deployment.pk}/").json()
    key = Resource.objects.get().key
    assert seen["status"] == "succeeded"
    assert [each["key"] for each in seen["plan"]["resources"]] == [f"in/acme/staging/{key}"]

    client.force_login(alice)
    page = client.get(f"/deployments/{deployment.pk}/").content.decode()
    assert '<span class="faint">in acme/staging</span>' in page
    assert "acme/dev/shop/web.cache" in page
