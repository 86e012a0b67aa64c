"""Store the versions of a resource's state, and let its owners look at and restore them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction

from provisioning.drivers.base import DriverError, LeaseLostError
from provisioning.drivers.terraform.backends import HTTP, MANAGED
from provisioning.drivers.terraform.state import State
from provisioning.encryption import decrypt_bytes, encrypt_bytes, mac_bytes
from provisioning.exceptions import ConductorError
from provisioning.models import Resource, ResourceState, StateVersion, Step, StepStatus
from provisioning.models.steps import UNFINISHED_STEP_STATUSES
from provisioning.planning.maintenance import short_name
from provisioning.services.audit import record
from provisioning.services.locks import lock_environment
from provisioning.services.resources.find import require_owner
from provisioning.services.state.locks import holder_of, live_lock
from provisioning.services.state.retention import prune_versions

AT_CONDUCTOR = ("", MANAGED, HTTP)
FOLLOWS, NUMBERED = "state_version_follows", "state_version_number_unique"
COMPRESSED_FROM = 256 * 1024
"""Bytes; of a small state, which changes often, compression would take more time than it saves."""
_TRIES = 5


class StateRefusedError(DriverError):
    """Say why a state is not stored: it does not follow the one that is there."""

    def __init__(self, message: str) -> None:
        super().__init__(message, permanent=True)


class StateVersionError(ConductorError):
    """Say why a version of a state cannot be had or restored."""


class UnknownVersionError(StateVersionError):
    """Say that there is no such version."""


@dataclass(frozen=True, slots=True)
class Contents:
    """Name what a version of a state holds, without any value."""

    resources: tuple[str, ...]
    outputs: tuple[str, ...]
    sensitive: tuple[str, ...]


def hold_step(step: int, attempt: int) -> Step:
    """Lock a running step in the current transaction; raise LeaseLostError if it is another's now."""
    mine = Step.objects.select_for_update(no_key=True).filter(
        pk=step, attempt=attempt, status=StepStatus.RUNNING
    )
    held = mine.first()
    if held is None:
        raise LeaseLostError(f"Step {step} is not attempt {attempt}'s any more.")
    return held


def store_version(
    *,
    resource_id: UUID,
    state: bytes,
    serial: int | None = None,
    lineage: str = "",
    step: int | None = None,
    attempt: int = 0,
    person: str = "",
    lag_ms: int | None = None,
) -> int:
    """Store a state, encrypted, as the newest version; return its number.

    `lag_ms` tells how long after the tool had written it that is.
    The newest state, byte for byte, is accepted again and changes nothing. A Terraform state, which
    has a serial, is refused with StateRefusedError if it is of another lineage than the newest one or
    has no higher serial; the database refuses that too.
    """
    values = {
        "resource_id": resource_id,
        "serial": serial,
        "lineage": lineage,
        "step_id": step,
        "attempt": attempt,
        "stored_by": person,
        "lag_ms": lag_ms,
        **_packed(state),
        "size": len(state),
        "digest": mac_bytes(state),
    }
    versions = StateVersion.objects.filter(resource_id=resource_id)
    for _ in range(_TRIES):
        newest = versions.defer("data").order_by("-number").first()
        if newest is not None and _is_same(newest, state, serial, str(values["digest"])):
            return newest.number
        number = newest.number + 1 if newest is not None else 1
        try:
            with transaction.atomic():
                StateVersion.objects.create(number=number, **values)
        except IntegrityError as error:
            broken = _constraint(error)
            if broken == NUMBERED:
                continue  # somebody else stored one in this moment: it counts now
            if newest is None or broken != FOLLOWS:
                raise
            raise StateRefusedError(_refusal(newest, serial, lineage)) from error
        prune_versions(resource_id, number)
        return number
    raise StateRefusedError("The state was not stored: others store states of this resource too.")


def newest_state(resource_id: UUID) -> bytes | None:
    """Return the newest stored state of a resource; None if there is none or it was deleted."""
    newest = StateVersion.objects.filter(resource_id=resource_id).order_by("-number").first()
    return content_of(newest) if newest is not None and newest.size else None


def content_of(version: StateVersion) -> bytes:
    """Return the state that a version holds."""
    data = decrypt_bytes(bytes(version.data))
    return zlib.decompress(data) if version.compressed else data


def list_versions(*, resource: Resource, actor: User) -> list[StateVersion]:
    """Return the stored versions of a resource's state, newest first, without the states.

    Raises NotAllowedError for others than its owners.
    """
    require_owner(actor, resource, "see the states of")
    versions = resource.state_versions.defer("data").select_related("step")
    return list(versions.order_by("-number"))


def show_version(
    *, resource: Resource, number: int | None = None, actor: User
) -> tuple[StateVersion, Contents]:
    """Return a version, the newest if no number is given, and the names of what it holds.

    Raises UnknownVersionError if there is none, NotAllowedError for others than its owners.
    """
    require_owner(actor, resource, "see the states of")
    version = _version(resource, number)
    state = State.read(content_of(version))
    if state is None:
        return version, Contents((), (), ())
    return version, Contents(
        tuple(sorted(each.address for each in state.instances)),
        tuple(sorted(state.outputs)),
        tuple(sorted(state.sensitive())),
    )


def pull_state(*, resource: Resource, number: int | None = None, actor: User) -> bytes:
    """Return a whole state, secrets in clear; that is audited.

    Raises UnknownVersionError if there is none, NotAllowedError for others than its owners.
    """
    require_owner(actor, resource, "read the state of")
    version = _version(resource, number)
    state = content_of(version)
    _record(resource, actor, "pulled", f"Version {version.number}.")
    return state


def restore_version(*, resource: Resource, number: int, reason: str, actor: User) -> StateVersion:
    """Make an older state the newest one, and have the driver run at the next deployment.

    It is stored as a new version, with a higher serial. Raises StateVersionError without a reason, if
    there is no such version, and while a step runs or waits on the resource or somebody holds its
    state; NotAllowedError for others than its owners.
    """
    require_owner(actor, resource, "restore a state of")
    if not reason.strip():
        raise StateVersionError("Say why the older state is restored: it is kept with the change.")
    with transaction.atomic():
        lock_environment(resource.environment)
        resource = Resource.objects.select_for_update(no_key=True).get(pk=resource.pk)
        _check_restorable(resource)
        older, newest = _version(resource, number), _version(resource, None)
        if older.number == newest.number:
            raise StateVersionError(f"Version {number} is the newest one already.")
        state, serial, lineage = content_of(older), newest.serial, older.lineage
        if older.serial is not None or serial is not None:
            read = State.read(state)
            if read is None:
                raise StateVersionError(f"Version {number} holds no state that could be restored.")
            lineage, serial = read.lineage, max(read.serial, serial or 0) + 1
            state = read.with_serial(serial)
        store_version(
            resource_id=resource.pk,
            state=state,
            serial=serial,
            lineage=lineage,
            person=actor.get_username(),
        )
        forget_applied(resource)
        _record(resource, actor, "restored", f"Version {number}: {reason.strip()}")
        return _version(resource, None)


def accept_state(*, resource: Resource, reason: str, actor: User) -> None:
    """Take whatever external state is there at the next deployment for the resource's own.

    Raises StateVersionError without a reason, for a state that is kept at Conductor, and while a step
    runs or waits on the resource; NotAllowedError for others than its owners.
    """
    require_owner(actor, resource, "accept a state of")
    if not reason.strip():
        raise StateVersionError("Say why the state that is there is right: it is kept.")
    with transaction.atomic():
        lock_environment(resource.environment)
        resource = Resource.objects.select_for_update(no_key=True).get(pk=resource.pk)
        if resource.state_backend in ("", MANAGED):
            raise StateVersionError(
                f"The state of {short_name(resource.key)} is kept at Conductor: restore a version of it."
            )
        _check_unused(resource)
        forget_lineage(resource)
        forget_applied(resource)
        _record(resource, actor, "accepted", reason.strip())


def forget_lineage(resource: Resource) -> None:
    """Take the next state that is found for the resource's, of whatever lineage."""
    known = {**resource.state_metadata}
    known.pop("lineage", None)
    known.pop("serial", None)
    resource.state_metadata = known
    resource.save(update_fields=["state_metadata", "updated_at"])


def forget_applied(resource: Resource) -> None:
    """Have the driver run at the next deployment that comes to a resource: its state was changed."""
    resource.applied_mac = resource.applied_spec_digest = ""
    resource.save(update_fields=["applied_mac", "applied_spec_digest", "updated_at"])


def _packed(state: bytes) -> dict[str, Any]:
    compressed = len(state) >= COMPRESSED_FROM
    data = encrypt_bytes(zlib.compress(state, 1) if compressed else state)
    return {"data": data, "compressed": compressed}


def _is_same(newest: StateVersion, state: bytes, serial: int | None, digest: str) -> bool:
    """Tell whether a state is the newest one; a digest may have been made with a former key."""
    if newest.digest == digest:
        return True
    return serial is not None and newest.serial == serial and content_of(newest) == state


def _constraint(error: IntegrityError) -> str:
    return str(getattr(getattr(error.__cause__, "diag", None), "constraint_name", ""))


def _refusal(newest: StateVersion, serial: int | None, lineage: str) -> str:
    return (
        f"The state was not stored: it is of lineage {lineage or 'unknown'} and serial "
        f"{'unknown' if serial is None else serial}, and the stored one is of lineage "
        f"{newest.lineage} and serial {newest.serial}. Only a later version of that one can follow."
    )


def _version(resource: Resource, number: int | None) -> StateVersion:
    versions = resource.state_versions.order_by("-number")
    found = (versions if number is None else versions.filter(number=number)).first()
    if found is not None:
        return found
    name = short_name(resource.key)
    if number is not None:
        raise UnknownVersionError(f"There is no version {number} of the state of {name}.")
    if resource.state_backend not in AT_CONDUCTOR:
        raise UnknownVersionError(
            f"The state of {name} is not kept at Conductor, but at {resource.state_location}."
        )
    raise UnknownVersionError(f"There is no state of {name}.")


def _check_restorable(resource: Resource) -> None:
    name = short_name(resource.key)
    if resource.state_backend not in AT_CONDUCTOR:
        raise StateVersionError(
            f"The state of {name} is kept at {resource.state_location}: restore it there."
        )
    _check_unused(resource)


def _check_unused(resource: Resource) -> None:
    name = short_name(resource.key)
    if resource.state in (ResourceState.DELETING, ResourceState.DELETED):
        raise StateVersionError(f"{name} is {resource.get_state_display().lower()}.")
    working = Step.objects.filter(resource=resource, status__in=UNFINISHED_STEP_STATUSES).first()
    if working is not None:
        raise StateVersionError(
            f"Deployment {working.deployment_id} is at work on {name}, or about to be: wait "
            "for its end."
        )
    lock = live_lock(resource.pk)
    if lock is not None:
        raise StateVersionError(f"The state of {name} is locked by {holder_of(lock)}.")


def _record(resource: Resource, actor: User, action: str, reason: str) -> None:
    record(
        actor=actor,
        action=f"state.{action}",
        subject_type="resource",
        subject_id=resource.pk,
        subject=resource.key,
        reason=reason,
    )
