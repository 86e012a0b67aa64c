"""Answer what deployments ask: approve, reject, withdraw, expire.

Each decision holds the environment's lock, and a conditional update lets one of two deciders win.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from provisioning.exceptions import ConductorError
from provisioning.models import (
    Approval,
    ApprovalKind,
    ApprovalStatus,
    Deployment,
    DeploymentStatus,
    Membership,
    Role,
)
from provisioning.services import transitions
from provisioning.services.deployments.questions import withdraw_questions
from provisioning.services.deployments.start import replan
from provisioning.services.locks import lock_environment
from provisioning.services.people import NotAllowedError, owns


class AlreadyDecidedError(ConductorError):
    """Tell who was faster, or why there is nothing to decide any more."""


class CommentMissingError(ConductorError):
    """Ask for the reason that a refusal needs."""


def may_decide(user: User, approval: Approval) -> bool:
    """Tell whether a person may answer: an owner of the team asked, or staff, and not the requester."""
    return approval.requested_by_id != user.pk and owns(user, approval.team)


def approve(*, approval: Approval, actor: User, comment: str = "") -> Deployment:
    """Allow what is asked; with the last answer the deployment goes on by itself.

    If its plan has changed since, it shows the new one and asks for confirmation. Raises
    NotAllowedError, or AlreadyDecidedError if somebody else was faster.
    """
    with _deciding(approval, actor) as locked:
        transitions.move(
            locked,
            ApprovalStatus.APPROVED,
            actor=actor.get_username(),
            reason=comment,
            comment=comment,
            decided_by=actor.get_username(),
            decided_at=timezone.now(),
        )
        deployment = locked.deployment
        open_ones = deployment.approvals.filter(status=ApprovalStatus.PENDING)
        if not open_ones.exists():
            transitions.move(
                deployment,
                DeploymentStatus.WAITING,
                actor=actor.get_username(),
                reason="Everybody who was asked has approved.",
                status_reason="",
            )
            replan(deployment)
    deployment.refresh_from_db()
    return deployment


def reject(*, approval: Approval, actor: User, comment: str) -> Deployment:
    """Refuse what is asked; the deployment ends `rejected`, and the comment tells why.

    Raises CommentMissingError, NotAllowedError or AlreadyDecidedError.
    """
    comment = comment.strip()
    if not comment:
        raise CommentMissingError("A rejection needs a comment that tells the requester why.")
    with _deciding(approval, actor) as locked:
        transitions.move(
            locked,
            ApprovalStatus.REJECTED,
            actor=actor.get_username(),
            reason=comment,
            comment=comment,
            decided_by=actor.get_username(),
            decided_at=timezone.now(),
        )
        what = locked.key or "the deployment"
        reason = f"{actor.get_username()} of the asked team {locked.team} refused {what}: {comment}"
        _end(locked.deployment, DeploymentStatus.REJECTED, reason, actor.get_username())
    return locked.deployment


def withdraw(*, approval: Approval, actor: User) -> Deployment:
    """Take back a request of one's own, with all that its deployment asks; it ends `cancelled`.

    Raises NotAllowedError unless the actor is the requester or staff, or AlreadyDecidedError.
    """
    if approval.requested_by_id != actor.pk and not actor.is_staff:
        raise NotAllowedError(
            f"{actor.get_username()} may not withdraw approval {approval.pk}: {approval.asked_by} "
            "asked for it."
        )
    with _locked(approval) as locked:
        reason = f"{actor.get_username()} withdrew the request."
        _end(locked.deployment, DeploymentStatus.CANCELLED, reason, actor.get_username())
    return locked.deployment


def expire_approvals() -> None:
    """End the deployments whose owners did not answer in time."""
    late = Approval.objects.filter(status=ApprovalStatus.PENDING, expires_at__lte=timezone.now())
    for approval in late.select_related("deployment__environment").order_by("pk"):
        with transaction.atomic():
            lock_environment(approval.deployment.environment, approval.deployment.scope)
            deployment = _lock_deployment(approval)
            locked = Approval.objects.select_for_update(no_key=True, of=("self",)).get(
                pk=approval.pk
            )
            if locked.status != ApprovalStatus.PENDING:
                continue  # somebody answered a moment ago
            reason = f"Nobody of the team {approval.team} answered until {_time(approval)}."
            transitions.move(
                locked, ApprovalStatus.EXPIRED, reason=reason, decided_at=timezone.now()
            )
            _end(deployment, DeploymentStatus.EXPIRED, reason, transitions.SYSTEM)


@contextmanager
def _deciding(approval: Approval, actor: User) -> Iterator[Approval]:
    """Let a person who may decide about a pending approval do so."""
    with _locked(approval) as locked:
        if locked.deployment.requested_by_id == actor.pk:
            raise NotAllowedError(
                f"{actor.get_username()} asked for this, and nobody decides about a request of "
                "their own."
            )
        if not owns(actor, locked.team):
            raise NotAllowedError(
                f"{actor.get_username()} may not decide about approval {locked.pk}: that is for "
                f"the owners of the team {locked.team} ({_owners(locked)}) and for staff."
            )
        if locked.expires_at <= timezone.now():
            raise AlreadyDecidedError(
                f"Approval {locked.pk} expired at {_time(locked)}: the request has to be made again."
            )
        yield locked


@contextmanager
def _locked(approval: Approval) -> Iterator[Approval]:
    """Hold a pending approval and its deployment; raise AlreadyDecidedError if it is not pending."""
    with transaction.atomic():
        lock_environment(approval.deployment.environment, approval.deployment.scope)
        deployment = _lock_deployment(approval)
        locked = (
            Approval.objects.select_for_update(no_key=True, of=("self",))
            .select_related("team", "resource")
            .get(pk=approval.pk)
        )
        locked.deployment = deployment
        if locked.status != ApprovalStatus.PENDING:
            by = f" by {locked.decided_by}" if locked.decided_by else ""
            why = f": {locked.comment}" if locked.comment else "."
            raise AlreadyDecidedError(
                f"Approval {locked.pk} is {locked.get_status_display().lower()} already{by}{why}"
            )
        yield locked


def _lock_deployment(approval: Approval) -> Deployment:
    rows = Deployment.objects.select_for_update(no_key=True, of=("self",))
    return rows.select_related("environment", "application__team").get(pk=approval.deployment_id)


def _end(deployment: Deployment, status: DeploymentStatus, reason: str, actor: str) -> None:
    transitions.move(
        deployment,
        status,
        actor=actor,
        reason=reason,
        status_reason=reason,
        finished_at=timezone.now(),
    )
    withdraw_questions([deployment], reason=reason, actor=actor)


def _owners(approval: Approval) -> str:
    owners = Membership.objects.filter(team=approval.team, role=Role.OWNER)
    if approval.kind == ApprovalKind.DEPLOYMENT and approval.requested_by_id is not None:
        owners = owners.exclude(user=approval.requested_by_id)
    names = owners.order_by("user__username").values_list("user__username", flat=True)
    return ", ".join(names) or "there is none"


def _time(approval: Approval) -> str:
    return f"{approval.expires_at:%Y-%m-%d %H:%M} UTC"
