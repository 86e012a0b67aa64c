from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from provisioning.models import Credential
from provisioning.services.credentials import Given, credentials_for
from tests.portal.commands import run
from tests.provisioning.place import Place


def test_a_value_is_read_from_standard_input_and_never_shown(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = place.environment
    monkeypatch.setattr("sys.stdin", io.StringIO("very-secret\n"))
    said = run("credential", "set", environment.name, "TOKEN").out
    assert said == f"Tools of {environment.name} get TOKEN from their next step on.\n"
    assert credentials_for(environment.pk, {}) == [Given("TOKEN", "very-secret", False)]
    listed = json.loads(run("credential", "list", environment.name, "--format", "json").out)
    assert [(row["name"], row["value"]) for row in listed] == [("TOKEN", "encrypted")]


def test_a_reference_is_kept_and_listed(place: Place) -> None:
    environment = place.environment
    run("credential", "set", environment.name, "KEY", "--from", "file:cloud/key", "--file")
    assert "KEY   file:cloud/key  True" in run("credential", "list", environment.name).out
    said = run("credential", "remove", environment.name, "KEY").out
    assert said == f"{environment.name} has no credential KEY any more.\n"
    assert not Credential.objects.exists()


def _form(place: Place, **fields: Any) -> dict[str, Any]:
    return {"environment": place.environment.pk, "name": "TOKEN", "value": "", "reference": ""} | (
        fields
    )


def test_staff_keep_a_credential_in_the_admin(place: Place, client: Client) -> None:
    client.force_login(User.objects.create_user("root", is_staff=True))
    answer = client.post("/admin/provisioning/credential/add/", _form(place, value="very-secret"))
    assert answer.status_code == 302
    row = Credential.objects.get()
    page = client.get(f"/admin/provisioning/credential/{row.pk}/change/").content.decode()
    assert "very-secret" not in page
    assert row.ciphertext not in page


def test_the_admin_says_what_cannot_be_kept(place: Place, client: Client) -> None:
    client.force_login(User.objects.create_user("root", is_staff=True))
    answer = client.post(
        "/admin/provisioning/credential/add/", _form(place, name="PATH", value="x")
    )
    assert "it would change how tools run" in answer.content.decode()
    assert not Credential.objects.exists()
