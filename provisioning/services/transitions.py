"""The only place that gives a deployment, a step, a resource, a consumer or an approval its status.

Each move is checked against a table, made by a conditional update that decides who wins, and leaves
an audit event and news for whoever watches in the same transaction. One that is refused undoes the
whole of that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from django.db import models, transaction

from provisioning.exceptions import ConductorError
from provisioning.models import (
    Approval,
    ApprovalStatus,
    AuditEvent,
    ConsumerState,
    Deployment,
    DeploymentStatus,
    Resource,
    ResourceConsumer,
    ResourceState,
    Step,
    StepStatus,
)
from provisioning.services.logs.announcing import announce

Subject: TypeAlias = Deployment | Step | Resource | ResourceConsumer | Approval

S = TypeVar("S", Deployment, Step, Resource, ResourceConsumer, Approval)

SYSTEM = "conductor"
"""The actor of what no person asked for."""

_D, _S, _R, _C = DeploymentStatus, StepStatus, ResourceState, ConsumerState
_A = ApprovalStatus
_NEW = ""

ALLOWED: Mapping[type[models.Model], Mapping[str, frozenset[str]]] = {
    Deployment: {
        _NEW: frozenset({_D.WAITING, _D.PENDING_APPROVAL}),
        _D.PENDING_APPROVAL: frozenset(
            {_D.WAITING, _D.PENDING_CONFIRMATION, _D.REJECTED, _D.EXPIRED, _D.CANCELLED}
            | {_D.SUPERSEDED, _D.FAILED}
        ),
        _D.PENDING_CONFIRMATION: frozenset(
            {_D.WAITING, _D.PENDING_APPROVAL, _D.EXPIRED, _D.CANCELLED, _D.SUPERSEDED, _D.FAILED}
        ),
        _D.WAITING: frozenset(
            {_D.RUNNING, _D.PENDING_CONFIRMATION, _D.PENDING_APPROVAL, _D.CANCELLED}
            | {_D.EXPIRED, _D.SUPERSEDED, _D.FAILED}
        ),
        _D.RUNNING: frozenset({_D.SUCCEEDED, _D.FAILED, _D.CANCELLING}),
        _D.CANCELLING: frozenset({_D.SUCCEEDED, _D.CANCELLED, _D.TIMED_OUT}),
    },
    Step: {
        _NEW: frozenset({_S.PENDING}),
        _S.PENDING: frozenset({_S.RUNNING, _S.BLOCKED, _S.CANCELLED}),
        _S.RUNNING: frozenset({_S.SUCCEEDED, _S.FAILED, _S.PENDING, _S.RECOVERING, _S.CANCELLED}),
        _S.RECOVERING: frozenset({_S.PENDING, _S.FAILED, _S.CANCELLED}),
    },
    Resource: {
        _NEW: frozenset({_R.PROVISIONING}),
        _R.PROVISIONING: frozenset({_R.ACTIVE, _R.FAILED, _R.DELETING, _R.DELETED}),
        _R.ACTIVE: frozenset({_R.UPDATING, _R.DELETING, _R.FAILED}),
        _R.UPDATING: frozenset({_R.ACTIVE, _R.FAILED, _R.DELETING}),
        _R.DELETING: frozenset({_R.DELETED, _R.ACTIVE, _R.FAILED}),
        _R.FAILED: frozenset({_R.PROVISIONING, _R.UPDATING, _R.DELETING, _R.DELETED}),
    },
    ResourceConsumer: {
        _NEW: frozenset({_C.PENDING, _C.ACTIVE}),
        _C.PENDING: frozenset({_C.ACTIVE, _C.WITHDRAWN}),
        _C.ACTIVE: frozenset({_C.RELEASED, _C.REVOKED, _C.BROKEN, _C.WITHDRAWN}),
    },
    Approval: {
        _NEW: frozenset({_A.PENDING}),
        _A.PENDING: frozenset({_A.APPROVED, _A.REJECTED, _A.EXPIRED, _A.WITHDRAWN}),
    },
}


class InvalidTransitionError(ConductorError):
    """Refuse a move that the table does not allow, or that somebody else's move has overtaken."""


def begin(
    subjects: Sequence[S],
    status: str,
    *,
    actor: str,
    reason: str = "",
    deployment: Deployment | None = None,
) -> Sequence[S]:
    """Store new rows of one model with their first status; raise InvalidTransitionError."""
    if not subjects:
        return subjects
    model = type(subjects[0])
    _check(model, _NEW, status)
    for subject in subjects:
        setattr(subject, _field(model), status)
    with transaction.atomic(savepoint=False):
        model._default_manager.bulk_create(subjects)
        _record(subjects, dict.fromkeys((s.pk for s in subjects), _NEW), actor, reason, deployment)
    return subjects


def move(
    subject: Subject,
    status: str,
    *,
    actor: str = SYSTEM,
    reason: str = "",
    deployment: Deployment | None = None,
    **fields: Any,
) -> None:
    """Move one row to a status, and set fields with it; see `move_all`."""
    move_all([subject], status, actor=actor, reason=reason, deployment=deployment, **fields)


def move_all(
    subjects: Sequence[Subject],
    status: str,
    *,
    actor: str = SYSTEM,
    reason: str = "",
    deployment: Deployment | None = None,
    **fields: Any,
) -> None:
    """Move rows of one model to a status, and set the same fields in each.

    A row wins only if it still has the status that the given object has, and a step only if its
    attempt is the given one's too. If one row loses, InvalidTransitionError is raised and no row is
    changed. The objects follow their rows.
    """
    if not subjects:
        return
    model = type(subjects[0])
    name = _field(model)
    old = {subject.pk: str(getattr(subject, name)) for subject in subjects}
    for before in set(old.values()):
        _check(model, before, status)
    with transaction.atomic(savepoint=False):
        moved = 0
        for group in _alike(subjects, name):
            still: dict[str, Any] = {name: getattr(group[0], name)}
            if isinstance(group[0], Step):
                still["attempt"] = group[0].attempt
            rows = model._default_manager.filter(pk__in=[each.pk for each in group], **still)
            moved += rows.update(**{name: status}, **fields)
        if moved != len(subjects):
            raise InvalidTransitionError(
                f"{_label(subjects[0])} has been moved on by somebody else in the meantime, and can "
                f"no longer become {status!r}."
            )
        for subject in subjects:
            for field, value in {name: status, **fields}.items():
                if not hasattr(value, "resolve_expression"):  # computed by the database
                    setattr(subject, field, value)
        _record(subjects, old, actor, reason, deployment)


def _check(model: type[models.Model], old: str, new: str) -> None:
    if new not in ALLOWED[model].get(old, frozenset()):
        start = f"A {_type(model)} that is {old!r}" if old else f"A new {_type(model)}"
        raise InvalidTransitionError(f"{start} cannot become {new!r}.")


def _alike(subjects: Sequence[Subject], name: str) -> list[list[Subject]]:
    """Group the rows that one conditional update can move."""
    groups: dict[tuple[str, int], list[Subject]] = {}
    for subject in subjects:
        attempt = subject.attempt if isinstance(subject, Step) else 0
        groups.setdefault((getattr(subject, name), attempt), []).append(subject)
    return list(groups.values())


def _record(
    subjects: Sequence[Subject],
    old: Mapping[Any, str],
    actor: str,
    reason: str,
    deployment: Deployment | None,
) -> None:
    model = type(subjects[0])
    AuditEvent.objects.bulk_create(
        AuditEvent(
            actor=actor,
            action=f"{_type(model)}.{getattr(subject, _field(model))}",
            subject_type=_type(model),
            subject_id=str(subject.pk),
            subject=_label(subject)[:600],
            old_status=old[subject.pk],
            new_status=getattr(subject, _field(model)),
            reason=reason,
            deployment_id=str(_deployment_id(subject, deployment) or ""),
        )
        for subject in subjects
    )
    if model in (Deployment, Step, Approval):
        announce(_news(subjects, deployment))


def _news(
    subjects: Sequence[Subject], deployment: Deployment | None
) -> Iterator[tuple[int, int | None]]:
    """Name the deployments that moved; and if a single step did, that step."""
    for subject in subjects:
        changed = _deployment_id(subject, deployment)
        if changed is not None:
            single = len(subjects) == 1 and isinstance(subject, Step)
            yield changed, int(subject.pk) if single else None


def _deployment_id(subject: Subject, deployment: Deployment | None) -> int | None:
    if isinstance(subject, Deployment):
        return subject.pk
    if deployment is not None:
        return deployment.pk
    return None if isinstance(subject, Resource) else subject.deployment_id


def _field(model: type[models.Model]) -> str:
    return "status" if model in (Deployment, Step, Approval) else "state"


def _type(model: type[models.Model]) -> str:
    return "consumer" if model is ResourceConsumer else str(model._meta.model_name)


def _label(subject: Subject) -> str:
    if isinstance(subject, Resource):
        return subject.key
    if isinstance(subject, Step):
        return f"{subject.action} {subject.resource.key}"
    if isinstance(subject, ResourceConsumer):
        return f"{subject.workload.name}: {subject.alias}"
    if isinstance(subject, Approval):
        return subject.key or f"deployment {subject.deployment_id}"
    return f"{subject.kind} {subject.pk}"
