"""Keeps what the tools of one environment may sign in with.

A value is encrypted and never shown again. A reference is resolved by the worker that needs it, so
that workload identities and secrets that only some workers have can be used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction

from provisioning.drivers.secrets import resolve_secrets
from provisioning.encryption import decrypt, encrypt
from provisioning.exceptions import ConductorError
from provisioning.models import Credential, Environment
from provisioning.models.credentials import VARIABLE_VALIDATOR
from provisioning.score.secretref import KEY, malformed
from provisioning.services.audit import record
from provisioning.services.people import require_staff

MOST_CHARACTERS = 64 * 1024
POSTGRES_SERVER = "CONDUCTOR_POSTGRES_ADMIN_URL"
"""The one variable of Conductor's own: on which server the environment's databases are created."""

_RESERVED = ("CONDUCTOR_", "DYLD_", "LD_", "PYTHON", "TF_CLI_", "TF_DATA_", "TF_LOG", "TF_REATTACH")
_RESERVED_NAMES = ("ENV", "BASH_ENV", "HOME", "IFS", "PATH", "SHELL", "TMPDIR")


class CredentialError(ConductorError):
    """Say why a credential cannot be kept or is not there; never its value."""


@dataclass(frozen=True, slots=True)
class Given:
    """Hold a credential as a tool gets it: a variable's value, or a file's content."""

    name: str
    value: str
    as_file: bool


def set_credential(
    *,
    environment: Environment,
    name: str,
    value: str = "",
    reference: str = "",
    as_file: bool = False,
    actor: User,
) -> Credential:
    """Keep a value or a reference (`env:NAME`, `file:PATH`, …) under a variable's name.

    What was kept under that name before is replaced. Raise CredentialError, or NotAllowedError unless
    the actor is staff.
    """
    require_staff(actor, "keep credentials")
    check_credential(name, value, reference)
    with transaction.atomic():
        credential, created = Credential.objects.update_or_create(
            environment=environment,
            name=name,
            defaults={
                "ciphertext": encrypt(value) if value else "",
                "reference": reference,
                "as_file": as_file,
            },
        )
        _record(credential, environment, actor, "created" if created else "changed", reference)
    return credential


def remove_credential(*, environment: Environment, name: str, actor: User) -> None:
    """Forget a credential; raise CredentialError if it is not there."""
    require_staff(actor, "remove credentials")
    with transaction.atomic():
        credential = Credential.objects.filter(environment=environment, name=name).first()
        if credential is None:
            raise CredentialError(f"{environment.name} has no credential {name}.")
        _record(credential, environment, actor, "deleted")
        credential.delete()


def credentials_for(environment_id: int, worker: Mapping[str, str]) -> list[Given]:
    """Return an environment's credentials in clear, for its worker only; by name.

    `worker` is the worker's own environment, in which references are resolved. Raise SecretError for
    one that this worker does not have.
    """
    rows = Credential.objects.filter(environment=environment_id).order_by("name")
    return [Given(row.name, _value(row, worker), row.as_file) for row in rows]


def _value(row: Credential, worker: Mapping[str, str]) -> str:
    if row.ciphertext:
        return decrypt(row.ciphertext)
    return str(resolve_secrets({row.name: {KEY: row.reference}}, worker)[row.name])


def check_credential(name: str, value: str, reference: str) -> None:
    """Raise CredentialError unless a credential of this name can hold the value or the reference."""
    try:
        VARIABLE_VALIDATOR(name)
    except ValidationError as error:
        raise CredentialError(f"{name!r} cannot be kept. {error.messages[0]}") from error
    own = name.startswith(_RESERVED) and name != POSTGRES_SERVER
    if own or name in _RESERVED_NAMES or len(name) > 100:
        raise CredentialError(f"{name} cannot be kept: it would change how tools run.")
    if bool(value) == bool(reference):
        raise CredentialError(f"Give {name} either a value or a reference.")
    if len(value) > MOST_CHARACTERS or "\0" in value:
        raise CredentialError(f"The value of {name} is too long or holds a zero byte.")
    if reference and (wrong := malformed({KEY: reference})):
        raise CredentialError(wrong)


def _record(
    credential: Credential, environment: Environment, actor: User, verb: str, reference: str = ""
) -> None:
    record(
        actor=actor,
        action=f"credential.{verb}",
        subject_type="credential",
        subject_id=credential.pk,
        subject=f"{credential.name} of {environment.name}",
        reason=f"It refers to {reference}." if reference else "",
    )
