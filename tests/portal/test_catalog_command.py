from __future__ import annotations

import json
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.auth.models import User

from provisioning.models import Organisation, ResourceTemplate, ResourceTemplateVersion
from tests.portal.commands import run

ALPHA = """\
name: alpha
type: cache
version: 1.0.0
driver: template
description: A cache.
params:
  type: object
  required: [size]
  properties:
    size: {type: [integer, string], default: 3, description: How large.}
outputs:
  password: {sensitive: true, description: To log in.}
config:
  outputs: {password: "${params.size}"}
"""


@pytest.fixture
def acme(db: None) -> Organisation:
    return Organisation.objects.create(name="acme")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "template.yaml").write_text(ALPHA)
    return tmp_path


def test_built_in_catalog_syncs(acme: Organisation) -> None:
    folders = [path.parent.name for path in settings.CONDUCTOR_CATALOG.glob("*/template.yaml")]
    ran = run("catalog", "sync", str(settings.CONDUCTOR_CATALOG), "--format", "json")
    assert ran.err == ""
    assert ran.status == 0
    synced = json.loads(ran.out)
    assert {"postgres", "volume", "azure-cosmosdb"} <= {each["template"] for each in synced}
    assert len(synced) == len(folders)
    assert {each["status"] for each in synced} == {"created"}


def test_sync_tells_what_it_did(acme: Organisation, folder: Path) -> None:
    ran = run("catalog", "sync", str(folder))
    digest = ResourceTemplateVersion.objects.get().digest[:19]
    assert ran.status == 0
    assert [line.split() for line in ran.out.splitlines()] == [
        ["TEMPLATE", "VERSION", "STATUS", "RULES", "DIGEST"],
        ["alpha", "1.0.0", "created", "+1", digest],
    ]
    again = run("catalog", "sync", str(folder / "template.yaml"))
    assert again.out.splitlines()[1].split() == ["alpha", "1.0.0", "unchanged", "=", digest]


def test_refused_sync_prints_places_for_editors(acme: Organisation, folder: Path) -> None:
    file = folder / "template.yaml"
    file.write_text(ALPHA.replace("driver: template", "driver: tempalte"))
    ran = run("catalog", "sync", str(folder))
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == f"{file}:4:9: There is no driver tempalte. (did you mean template?)\n"
    assert not ResourceTemplate.objects.exists()


def test_without_an_organisation_it_says_how_to_make_one(db: None, folder: Path) -> None:
    ran = run("catalog", "sync", str(folder))
    assert ran.status == 2
    assert ran.err == (
        "There is no organisation yet. Create one with manage.py organisation create NAME.\n"
    )


def test_one_of_several_organisations_has_to_be_named(acme: Organisation, folder: Path) -> None:
    Organisation.objects.create(name="other")
    ran = run("catalog", "sync", str(folder))
    assert ran.status == 2
    assert "Name one with --organisation NAME." in ran.err
    assert not ResourceTemplate.objects.exists()
    misspelt = run("catalog", "sync", str(folder), "--organisation", "othr")
    assert (misspelt.status, misspelt.err) == (
        2,
        "There is no organisation othr. Did you mean other?\n",
    )
    assert run("catalog", "sync", str(folder), "--organisation", "other").status == 0
    assert ResourceTemplate.objects.get().organisation.name == "other"


def test_developers_may_not_sync(acme: Organisation, folder: Path, alice: User) -> None:
    ran = run("catalog", "sync", str(folder), "--as", "alice")
    assert ran.status == 1
    assert "alice may not change the catalogue" in ran.err
    assert not ResourceTemplate.objects.exists()


def test_unknown_actor_is_named(acme: Organisation, folder: Path, alice: User) -> None:
    ran = run("catalog", "sync", str(folder), "--as", "alise")
    assert (ran.status, ran.err) == (2, "There is no active user alise. Did you mean alice?\n")


def test_list_and_show_tell_the_newest_version(acme: Organisation, folder: Path) -> None:
    for version in ("1.9.0", "1.10.0"):
        (folder / "template.yaml").write_text(ALPHA.replace("1.0.0", version))
        run("catalog", "sync", str(folder))
    listed = run("catalog", "list")
    assert listed.out.splitlines()[1].split() == ["alpha", "cache", "default", "template", "1.10.0"]
    shown = run("catalog", "show", "alpha").out.splitlines()
    assert "version  1.10.0" in shown
    rows = [line.split(maxsplit=4) for line in shown]
    assert ["size", "integer", "or", "string", "yes       3        How large."] in rows
    assert ["password", "string", "yes", "To", "log in."] in rows
    described = json.loads(run("catalog", "show", "alpha", "--format", "json").out)
    assert described["outputs"][0]["sensitive"] is True


def test_deprecated_version_is_the_newest_no_longer(acme: Organisation, folder: Path) -> None:
    run("catalog", "sync", str(folder))
    (folder / "template.yaml").write_text(ALPHA.replace("1.0.0", "2.0.0"))
    run("catalog", "sync", str(folder))
    ran = run("catalog", "deprecate", "alpha", "2.0.0")
    assert ran.out == "alpha 2.0.0 is deprecated.\n"
    assert json.loads(run("catalog", "list", "--format", "json").out)[0]["version"] == "1.0.0"
    assert run("catalog", "deprecate", "alpha", "2.0.0").status == 1
    assert run("catalog", "deprecate", "alpha", "2.0.1").err == (
        "There is no resource template version 2.0.1. Did you mean 2.0.0?\n"
    )


def test_wrong_call_is_a_usage_error(acme: Organisation) -> None:
    assert run("catalog", "sync").status == 2
    assert run("catalog", "snyc", "x").status == 2
    assert run("catalog", "show", "nothing").status == 2
