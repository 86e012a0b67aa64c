from __future__ import annotations

import json

import pytest
from cryptography.fernet import Fernet
from django.conf import LazySettings
from django.contrib.auth.models import User

from provisioning.encryption import decrypt, decrypt_bytes, encrypt_bytes, mac
from provisioning.models import (
    AuditEvent,
    ConsumerOutput,
    Deployment,
    Resource,
    ResourceOutput,
    StateVersion,
)
from provisioning.services import encryption_keys
from tests.portal.commands import run
from tests.provisioning.place import Place


@pytest.fixture
def secrets(place: Place) -> Place:
    """Return a place with an encrypted output, an encrypted Score text and three states."""
    place.template(
        "cache",
        outputs={"host": False, "password": True, "token": True},
        config={"own": ["token"]},
        uses=["consumers"],
    )
    place.deploy("  one: {type: cache}\n")
    for number in range(1, 4):
        StateVersion.objects.create(
            resource=Resource.objects.get(),
            number=number,
            attempt=1,
            data=encrypt_bytes(b"state"),
            size=5,
            digest="",
        )
    return place


def test_everything_is_readable_with_the_newest_key_alone(
    secrets: Place, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encryption_keys, "BATCH", 2)
    newest = Fernet.generate_key().decode()
    signed = mac("value")
    settings.ENCRYPTION_KEYS = [newest, *settings.ENCRYPTION_KEYS]
    assert mac("value") == signed

    ran = run("encryption", "rotate")

    assert ran.status == 0
    assert ran.out.splitlines() == [
        "1 output values have the newest key.",
        "1 consumer output values have the newest key.",
        "3 state values have the newest key.",
        "0 credential values have the newest key.",
        "1 Score text values have the newest key.",
    ]
    assert ran.err.splitlines()[2:4] == ["state: 2 of 3", "state: 3 of 3"]
    settings.ENCRYPTION_KEYS = [newest]
    output = ResourceOutput.objects.get(sensitive=True)
    assert json.loads(decrypt(output.ciphertext)) == "fake-password"
    own = ConsumerOutput.objects.get()
    assert json.loads(decrypt(own.ciphertext)).startswith("fake-token-")
    states = {decrypt_bytes(bytes(state.data)) for state in StateVersion.objects.all()}
    assert states == {b"state"}
    assert "type: cache" in decrypt(Deployment.objects.get().score)
    event = AuditEvent.objects.get(action="encryption.rotated")
    assert (
        event.reason == "1 output values, 1 consumer output values, 3 state values, "
        "0 credential values, 1 Score text values"
    )


def test_what_no_key_opens_is_named_and_left_as_it_is(
    secrets: Place, settings: LazySettings
) -> None:
    keys = list(settings.ENCRYPTION_KEYS)
    lost = StateVersion.objects.get(number=2)
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    StateVersion.objects.filter(pk=lost.pk).update(data=encrypt_bytes(b"state"))
    lost.refresh_from_db()
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode(), *keys]

    ran = run("encryption", "rotate")

    assert ran.status == 1
    assert f"No key opens state {lost.pk}." in ran.err
    assert "2 state values have the newest key." in ran.out
    assert bytes(StateVersion.objects.get(number=2).data) == bytes(lost.data)


def test_developers_may_not_rotate(secrets: Place, alice: User) -> None:
    before = ResourceOutput.objects.get(sensitive=True).ciphertext
    ran = run("encryption", "rotate", "--as", "alice")
    assert ran.status == 1
    assert "alice may not rotate the encryption keys" in ran.err
    assert ResourceOutput.objects.get(sensitive=True).ciphertext == before
