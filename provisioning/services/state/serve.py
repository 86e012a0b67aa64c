"""Serve states to Terraform's `http` backend: to a step's tool, by its run token, and to people.

Every answer to the same request is the same: Terraform repeats a request whose answer was lost, and
must neither find itself locked out nor its own state refused.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models.functions import Now

from provisioning.drivers.terraform.backends import HTTP
from provisioning.drivers.terraform.state import State
from provisioning.encryption import mac
from provisioning.exceptions import ConductorError
from provisioning.models import Resource, ResourceState, StateLock, StateVersion, Step
from provisioning.models.steps import UNFINISHED_STEP_STATUSES
from provisioning.planning.maintenance import short_name
from provisioning.services.audit import record
from provisioning.services.resources.find import UnknownResourceError, require_owner
from provisioning.services.state.locks import PERSON_HOLDS, holder_of, is_live, live_lock, lock_of
from provisioning.services.state.versions import (
    StateRefusedError,
    forget_applied,
    forget_lineage,
    hold_step,
    newest_state,
    store_version,
)

RUN_USERNAME = "run"
LONGEST_LOCK_ID = 100
_RUN_TOKEN = re.compile(r"(\d{1,18})\.(\d{1,9})\.([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class RunCaller:
    """Be the tool of a step; whether its token is good depends on what it asks for, and when."""

    step: int
    attempt: int
    signature: str


Caller: TypeAlias = RunCaller | User


class BadStateError(ConductorError):
    """Say what is wrong with a request."""


class StateDeniedError(ConductorError):
    """Say that this run may not have this state, or not any more."""


class StateConflictError(ConductorError):
    """Say why the state, or its lock, is not as the request supposes."""


class StateLockedError(ConductorError):
    """Say who holds the state; `info` is what Terraform wants to know of it."""

    def __init__(self, lock: StateLock) -> None:
        super().__init__(f"The state is locked by {holder_of(lock)}.")
        self.info: Mapping[str, Any] = lock.info


def open_state(*, step: int, attempt: int) -> str:
    """Let the coming tool of this attempt reach the state, and no earlier one; return its token.

    The token is good until the step has ended or a later attempt calls this; an attempt that only
    follows the tool leaves it as it is. Raises LeaseLostError.
    """
    with transaction.atomic():
        row = hold_step(step, attempt)
        row.tool_attempt = attempt
        row.save(update_fields=["tool_attempt"])
    return f"{step}.{attempt}.{_signature(step, attempt, row.resource_id)}"


def run_caller(password: str) -> RunCaller | None:
    """Return the run that a password is the token of, if it looks like one."""
    found = _RUN_TOKEN.fullmatch(password)
    return RunCaller(int(found[1]), int(found[2]), found[3]) if found else None


def read_state(*, resource_id: UUID, caller: Caller) -> bytes | None:
    """Return the newest state, or None; what a person reads is audited."""
    with transaction.atomic():
        resource = _resource(resource_id, caller, change=False)
        state = newest_state(resource.pk)
        if isinstance(caller, User) and state is not None:
            _record(resource, caller, "pulled", "By Terraform.")
    return state


def lock_state(*, resource_id: UUID, caller: Caller, info: Mapping[str, Any]) -> None:
    """Hold the state; asking again with the same ID is no conflict. Raises StateLockedError."""
    lock_id = info.get("ID")
    if not isinstance(lock_id, str) or not 0 < len(lock_id) <= LONGEST_LOCK_ID:
        raise BadStateError("A lock needs an ID, a text of 1 to 100 characters.")
    with transaction.atomic():
        resource = _resource(resource_id, caller, change=True)
        held = live_lock(resource.pk)
        if held is not None and not (held.lock_id == lock_id and _holds(caller, held)):
            raise StateLockedError(held)
        holder: dict[str, Any] = (
            {"step_id": caller.step, "attempt": caller.attempt, "person": None, "expires_at": None}
            if isinstance(caller, RunCaller)
            else {
                "step_id": None,
                "attempt": 0,
                "person": caller,
                "expires_at": Now() + PERSON_HOLDS,
            }
        )
        StateLock.objects.update_or_create(
            resource=resource, defaults={"lock_id": lock_id, "info": dict(info), **holder}
        )


def unlock_state(*, resource_id: UUID, caller: Caller, lock_id: str | None) -> None:
    """Let go of the state; one that is free already stays so.

    Without an ID it is `terraform force-unlock`: only a person may, and not while the step that holds
    it is alive. That is audited. Raises StateConflictError.
    """
    with transaction.atomic():
        resource = _resource(resource_id, caller, change=True)
        lock = lock_of(resource.pk)
        if lock is None:
            return
        if lock_id and lock_id != lock.lock_id:
            raise StateConflictError(
                f"The state is locked with the ID {lock.lock_id} by {holder_of(lock)}, not with {lock_id}."
            )
        if not (lock_id and _holds(caller, lock)):
            _check_may_force(caller, lock)
            _record(resource, caller, "unlocked", f"It was locked by {holder_of(lock)}.")
        lock.delete()


def write_state(*, resource_id: UUID, caller: Caller, body: bytes, lock_id: str | None) -> None:
    """Store a new version of the state, for whoever holds its lock.

    Raises BadStateError if it is not a whole state; StateConflictError, StateLockedError or
    StateRefusedError if the lock or the version does not fit.
    """
    state = State.read(body)
    if state is None or not state.lineage:
        raise BadStateError("The body is not a complete Terraform state.")
    with transaction.atomic():
        resource = _resource(resource_id, caller, change=True)
        _check_holds(resource, caller, lock_id)
        before = newest_state(resource.pk) if isinstance(caller, User) else None
        try:
            store_version(
                resource_id=resource.pk,
                state=body,
                serial=state.serial,
                lineage=state.lineage,
                **_by(caller),
            )
        except StateRefusedError as error:
            raise StateConflictError(str(error)) from error
        if isinstance(caller, User):
            StateLock.objects.filter(resource=resource).update(expires_at=Now() + PERSON_HOLDS)
            if body != before:
                forget_applied(resource)
                _record(resource, caller, "pushed", f"Serial {state.serial}.")


def delete_state(*, resource_id: UUID, caller: Caller) -> None:
    """Say that there is no state any more; the versions stay. Only a person may; it is audited."""
    if isinstance(caller, RunCaller):
        raise StateDeniedError("A run does not delete a state.")
    with transaction.atomic():
        resource = _resource(resource_id, caller, change=True)
        held = live_lock(resource.pk)
        if held is not None and not _holds(caller, held):
            raise StateLockedError(held)
        newest = (
            StateVersion.objects.filter(resource=resource).defer("data").order_by("-number").first()
        )
        if newest is None or not newest.size:
            return
        store_version(
            resource_id=resource.pk,
            state=b"",
            serial=(newest.serial or 0) + 1,
            lineage=newest.lineage,
            **_by(caller),
        )
        forget_lineage(resource)
        forget_applied(resource)
        _record(resource, caller, "deleted", "")


def _resource(resource_id: UUID, caller: Caller, *, change: bool) -> Resource:
    """Return the resource if the caller may have its state; with `change`, locked.

    Raises UnknownResourceError, NotAllowedError, StateDeniedError or StateConflictError.
    """
    rows = Resource.objects.select_for_update(no_key=True) if change else Resource.objects.all()
    if isinstance(caller, User):
        rows = rows.filter(pk__in=Resource.objects.visible_to(caller).values("pk"))
    resource = rows.filter(pk=resource_id).first()
    if resource is None:
        raise UnknownResourceError(f"There is no resource {resource_id}.")
    if isinstance(caller, User):
        require_owner(caller, resource, "reach the state of")
    else:
        _check_run(caller, resource)
    if resource.state_backend != HTTP:
        raise StateConflictError(f"The state of {short_name(resource.key)} is not served here.")
    if change and resource.state == ResourceState.DELETED:
        raise StateConflictError(f"{short_name(resource.key)} is deleted.")
    return resource


def _check_run(caller: RunCaller, resource: Resource) -> None:
    """Raise StateDeniedError unless the run's tool is the one that works on the resource now."""
    signature = _signature(caller.step, caller.attempt, resource.pk)
    held = Step.objects.select_for_update(no_key=True).filter(
        pk=caller.step,
        resource=resource,
        tool_attempt=caller.attempt,
        status__in=UNFINISHED_STEP_STATUSES,
    )
    if not hmac.compare_digest(signature, caller.signature) or not held:
        raise StateDeniedError("This run does not work on this resource, or not any more.")


def _signature(step: int, attempt: int, resource_id: UUID) -> str:
    return mac({"run token": [step, attempt, str(resource_id)]})


def _holds(caller: Caller, lock: StateLock) -> bool:
    if isinstance(caller, RunCaller):
        return (lock.step_id, lock.attempt) == (caller.step, caller.attempt)
    return lock.person_id == caller.pk


def _check_holds(resource: Resource, caller: Caller, lock_id: str | None) -> None:
    lock = lock_of(resource.pk)
    if lock is not None and lock.lock_id == lock_id and _holds(caller, lock):
        return
    if lock is not None and is_live(lock):
        raise StateLockedError(lock)
    raise StateConflictError("The state is written only under its lock: lock it first.")


def _check_may_force(caller: Caller, lock: StateLock) -> None:
    if isinstance(caller, RunCaller):
        raise StateConflictError(f"The state is locked by {holder_of(lock)}, not by this run.")
    if lock.step is not None and is_live(lock):
        raise StateConflictError(
            f"The state is locked by {holder_of(lock)}, which is at work: its lock goes with it."
        )


def _by(caller: Caller) -> dict[str, Any]:
    if isinstance(caller, RunCaller):
        return {"step": caller.step, "attempt": caller.attempt}
    return {"person": caller.get_username()}


def _record(resource: Resource, caller: Caller, action: str, reason: str) -> None:
    record(
        actor=caller if isinstance(caller, User) else None,
        action=f"state.{action}",
        subject_type="resource",
        subject_id=resource.pk,
        subject=resource.key,
        reason=reason,
    )
