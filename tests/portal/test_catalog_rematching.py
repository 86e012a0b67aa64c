from __future__ import annotations

from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.test import Client

from provisioning.models import ResourceTemplate, TemplateRule
from tests.portal.commands import run
from tests.provisioning.place import Place

STRONGER = """\
name: stronger
type: cache
version: 1.0.0
driver: fake
rules:
  - {environment_kind: development}
"""
DEVELOPMENT = """\
  here:
    type: cache
  named:
    type: cache
    id: main
"""


@pytest.fixture
def live(place: Place, tmp_path: Path) -> Place:
    """Return a place with two live requirements, and a catalogue that would serve them anew."""
    place.template("cache")
    place.deploy(DEVELOPMENT)
    (tmp_path / "catalog").mkdir()
    (tmp_path / "catalog" / "template.yaml").write_text(STRONGER)
    return place


def test_a_sync_that_would_match_live_requirements_differently_shows_them(
    live: Place, tmp_path: Path
) -> None:
    ran = run("catalog", "sync", str(tmp_path / "catalog"))

    assert ran.status == 1
    assert "2 live requirements would match differently" in ran.err
    assert (
        "dev: shop/web `here` (cache.default) is served by cache-template, and would be by stronger"
        in ran.err
    )
    assert "shop/web `named`" in ran.err
    assert "it has to be forced (--force" in ran.err
    assert not ResourceTemplate.objects.filter(name="stronger").exists()
    assert TemplateRule.objects.count() == 1


def test_force_syncs_it_and_what_lives_keeps_its_template(live: Place, tmp_path: Path) -> None:
    ran = run("catalog", "sync", str(tmp_path / "catalog"), "--force")

    assert ran.status == 0, ran.err
    assert TemplateRule.objects.count() == 2
    again = live.deploy(DEVELOPMENT)
    assert {each["template"]["name"] for each in again.plan["resources"]} == {"cache-template"}


def test_a_rule_that_concerns_nothing_live_needs_no_force(live: Place, tmp_path: Path) -> None:
    text = STRONGER.replace("environment_kind: development", "id: other")
    (tmp_path / "catalog" / "template.yaml").write_text(text)
    ran = run("catalog", "sync", str(tmp_path / "catalog"))

    assert ran.status == 0, ran.err
    assert TemplateRule.objects.count() == 2


def test_a_rule_for_an_id_concerns_only_requirements_with_it(live: Place, tmp_path: Path) -> None:
    text = STRONGER.replace("environment_kind: development", "id: main")
    (tmp_path / "catalog" / "template.yaml").write_text(text)
    ran = run("catalog", "sync", str(tmp_path / "catalog"))

    assert ran.status == 1
    assert "1 live requirements would" not in ran.err
    assert "1 live requirement would match differently" in ran.err
    assert "`named`" in ran.err


def test_the_admin_asks_before_a_rule_matches_live_requirements_differently(
    live: Place, admin_client: Client
) -> None:
    rule = TemplateRule.objects.get()
    other = ResourceTemplate.objects.create(
        organisation=live.organisation, name="other", type="cache", driver="fake"
    )
    page = f"/admin/provisioning/templaterule/{rule.pk}/change/"
    data = {"organisation": live.organisation.pk, "template": other.pk, "type": "cache"}

    refused = admin_client.post(page, data, follow=True)
    rule.refresh_from_db()
    assert "2 live requirements would match differently" in refused.content.decode()
    assert rule.template_id != other.pk

    forced = admin_client.post(page, {**data, "force": "on"})
    rule.refresh_from_db()
    assert forced.status_code == 302
    assert rule.template_id == other.pk


def test_the_admin_refuses_to_delete_a_rule_that_live_requirements_match(
    live: Place, admin_client: Client, admin_user: User
) -> None:
    rule = TemplateRule.objects.get()
    refused = admin_client.post(
        f"/admin/provisioning/templaterule/{rule.pk}/delete/", {"post": "yes"}, follow=True
    )

    assert "2 live requirements would match differently" in refused.content.decode()
    assert TemplateRule.objects.filter(pk=rule.pk).exists()
