"""Moves everything that is stored encrypted to the newest key. docs/operations.md says when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Model, QuerySet

from provisioning.encryption import DecryptionError, rotate, rotate_bytes
from provisioning.models import (
    ConsumerOutput,
    Credential,
    Deployment,
    ResourceOutput,
    StateVersion,
)
from provisioning.services.audit import record
from provisioning.services.people import require_staff

BATCH = 100


@dataclass(frozen=True, slots=True)
class Rotation:
    """Count the values of one kind that were encrypted again; `unreadable` names the others."""

    kind: str
    rotated: int
    unreadable: tuple[str, ...]


def rotate_everything(
    *, actor: User, progress: Callable[[str, int, int], None] = lambda kind, done, total: None
) -> list[Rotation]:
    """Encrypt every stored secret again with the newest key; return one count per kind.

    Batches of rows are locked and committed one after the other, so work goes on meanwhile, and an
    interrupted rotation can be repeated. `progress` is called with kind, rows done and rows in all.
    A value that no key opens is left as it is and named. Raise NotAllowedError unless the actor is
    staff.
    """
    require_staff(actor, "rotate the encryption keys")
    rotations = [
        _rotate("output", ResourceOutput.objects.exclude(ciphertext=""), "ciphertext", progress),
        _rotate(
            "consumer output", ConsumerOutput.objects.exclude(ciphertext=""), "ciphertext", progress
        ),
        _rotate("state", StateVersion.objects.all(), "data", progress),
        _rotate("credential", Credential.objects.exclude(ciphertext=""), "ciphertext", progress),
        _rotate("Score text", Deployment.objects.exclude(score=""), "score", progress),
    ]
    record(
        actor=actor,
        action="encryption.rotated",
        subject_type="encryption",
        subject_id="",
        subject="encryption keys",
        reason=", ".join(f"{each.rotated} {each.kind} values" for each in rotations),
    )
    return rotations


def _rotate(
    kind: str, rows: QuerySet[Any], field: str, progress: Callable[[str, int, int], None]
) -> Rotation:
    total = rows.count()
    done, last = 0, 0
    unreadable: list[str] = []
    while True:
        with transaction.atomic():
            batch = list(
                rows.filter(pk__gt=last).order_by("pk").only(field).select_for_update()[:BATCH]
            )
            unreadable += [str(row.pk) for row in batch if not _rotate_row(row, field)]
        if not batch:
            return Rotation(kind, done - len(unreadable), tuple(unreadable))
        done, last = done + len(batch), batch[-1].pk
        progress(kind, done, max(done, total))


def _rotate_row(row: Model, field: str) -> bool:
    value = getattr(row, field)
    try:
        rotated = rotate(value) if isinstance(value, str) else rotate_bytes(bytes(value))
    except DecryptionError:
        return False
    type(row)._default_manager.filter(pk=row.pk).update(**{field: rotated})
    return True
