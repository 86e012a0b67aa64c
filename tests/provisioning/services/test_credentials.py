from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction

from provisioning.drivers.secrets import SecretError
from provisioning.models import AuditEvent, Credential, Environment
from provisioning.services.credentials import (
    CredentialError,
    Given,
    credentials_for,
    remove_credential,
    set_credential,
)
from provisioning.services.encryption_keys import rotate_everything
from provisioning.services.people import NotAllowedError
from tests.provisioning.place import Place


@pytest.fixture
def environment(place: Place) -> Environment:
    return place.environment


@pytest.fixture
def staff(place: Place) -> User:
    return User.objects.create_user("root", is_staff=True)


def test_a_value_is_kept_encrypted_and_given_to_its_environment_only(
    environment: Environment, staff: User
) -> None:
    set_credential(environment=environment, name="TOKEN", value="s3cret-value", actor=staff)
    row = Credential.objects.get()
    assert "s3cret" not in row.ciphertext
    assert credentials_for(environment.pk, {}) == [Given("TOKEN", "s3cret-value", False)]
    other = Environment.objects.create(organisation=environment.organisation, name="other")
    assert credentials_for(other.pk, {}) == []


def test_a_reference_is_resolved_by_the_worker(environment: Environment, staff: User) -> None:
    set_credential(environment=environment, name="TOKEN", reference="env:CLOUD", actor=staff)
    assert credentials_for(environment.pk, {"CONDUCTOR_SECRET_CLOUD": "here"}) == [
        Given("TOKEN", "here", False)
    ]
    with pytest.raises(SecretError, match="the worker has no variable CONDUCTOR_SECRET_CLOUD"):
        credentials_for(environment.pk, {})


def test_setting_again_replaces_and_is_audited_without_the_value(
    environment: Environment, staff: User
) -> None:
    set_credential(environment=environment, name="TOKEN", value="one-value", actor=staff)
    set_credential(
        environment=environment, name="TOKEN", value="two-value", as_file=True, actor=staff
    )
    assert credentials_for(environment.pk, {}) == [Given("TOKEN", "two-value", True)]
    events = AuditEvent.objects.filter(subject_type="credential").order_by("pk")
    assert [(event.action, event.actor, event.subject) for event in events] == [
        ("credential.created", "root", f"TOKEN of {environment.name}"),
        ("credential.changed", "root", f"TOKEN of {environment.name}"),
    ]
    assert not any("-value" in str(vars(event)) for event in events)


def test_a_removed_credential_is_gone(environment: Environment, staff: User) -> None:
    set_credential(environment=environment, name="TOKEN", value="one", actor=staff)
    remove_credential(environment=environment, name="TOKEN", actor=staff)
    assert credentials_for(environment.pk, {}) == []
    with pytest.raises(CredentialError, match="has no credential TOKEN"):
        remove_credential(environment=environment, name="TOKEN", actor=staff)


@pytest.mark.parametrize(
    ("name", "given", "why"),
    [
        ("not a name", {"value": "x"}, "Use the name of an environment variable"),
        ("PATH", {"value": "x"}, "it would change how tools run"),
        ("LD_PRELOAD", {"value": "x"}, "it would change how tools run"),
        ("TF_CLI_ARGS", {"value": "x"}, "it would change how tools run"),
        ("CONDUCTOR_ENCRYPTION_KEYS", {"value": "x"}, "it would change how tools run"),
        ("TOKEN", {}, "either a value or a reference"),
        ("TOKEN", {"value": "x", "reference": "env:X"}, "either a value or a reference"),
        ("TOKEN", {"value": "a\0b"}, "holds a zero byte"),
        ("TOKEN", {"reference": "nonsense"}, "text of the form scheme:place"),
    ],
)
def test_what_cannot_be_kept_is_refused(
    environment: Environment, staff: User, name: str, given: dict[str, str], why: str
) -> None:
    with pytest.raises(CredentialError, match=why):
        set_credential(environment=environment, name=name, actor=staff, **given)
    assert not Credential.objects.exists()


def test_only_staff_keep_credentials(environment: Environment, place: Place) -> None:
    stranger = User.objects.create_user("stranger")
    with pytest.raises(NotAllowedError):
        set_credential(environment=environment, name="TOKEN", value="x", actor=stranger)
    assert not Credential.objects.exists()


def test_the_database_keeps_one_of_value_and_reference(environment: Environment) -> None:
    for fields in ({}, {"ciphertext": "x", "reference": "env:X"}):
        with (
            pytest.raises(IntegrityError, match="credential_value_or_reference"),
            transaction.atomic(),
        ):
            Credential.objects.create(environment=environment, name="TOKEN", **fields)


def test_the_database_keeps_one_credential_of_a_name(environment: Environment) -> None:
    Credential.objects.create(environment=environment, name="TOKEN", reference="env:X")
    with pytest.raises(IntegrityError, match="credential_name_unique"), transaction.atomic():
        Credential.objects.create(environment=environment, name="TOKEN", reference="env:Y")


def test_credentials_move_to_a_new_key(environment: Environment, staff: User) -> None:
    set_credential(environment=environment, name="TOKEN", value="kept", actor=staff)
    before = Credential.objects.get().ciphertext
    rotate_everything(actor=staff)
    assert Credential.objects.get().ciphertext != before
    assert credentials_for(environment.pk, {})[0].value == "kept"
