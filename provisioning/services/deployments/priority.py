"""A deployment's priority: whose steps workers take first."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db import transaction

from provisioning.exceptions import ConductorError
from provisioning.models import Application, Deployment
from provisioning.models.deployments import PRIORITY_LIMIT, TERMINAL_STATUSES
from provisioning.services.audit import record
from provisioning.services.people import NotAllowedError, owns

LOW, NORMAL, HIGH = -10, 0, 10
NAMES = {"low": LOW, "normal": NORMAL, "high": HIGH}


class PriorityError(ConductorError):
    """Say that something is no priority, or that it comes too late."""


def parse_priority(text: str) -> int:
    """Read `low`, `normal`, `high` or a whole number; raise PriorityError."""
    try:
        priority = NAMES[text] if text in NAMES else int(text)
    except ValueError:
        priority = PRIORITY_LIMIT + 1
    if abs(priority) > PRIORITY_LIMIT:
        raise PriorityError(
            f"{text!r} is not a priority: use low, normal, high, or a whole number from "
            f"-{PRIORITY_LIMIT} to {PRIORITY_LIMIT}."
        )
    return priority


def priority_name(priority: int) -> str:
    """Write a priority as a person would."""
    return next((name for name, value in NAMES.items() if value == priority), str(priority))


def require_priority(actor: User | None, application: Application | None, priority: int) -> None:
    """Raise NotAllowedError unless the actor may give a deployment this priority.

    Up to normal everybody may who deploys, up to high the owners of the application's team, and above
    that staff, lest everything is urgent. Without an actor Conductor itself acts.
    """
    if actor is None or actor.is_staff or priority <= NORMAL:
        return
    team = application.team if application else None
    if priority > HIGH or team is None:
        raise NotAllowedError(
            f"{actor.username} may not give the priority {priority_name(priority)}: above high, that "
            "is for platform engineers (staff users)."
        )
    if not owns(actor, team):
        raise NotAllowedError(
            f"{actor.username} may not give the priority {priority_name(priority)}: above normal, "
            f"that is for the owners of the team {team.name} and for platform engineers (staff users)."
        )


def kept_priority(actor: User | None, deployment: Deployment) -> int:
    """Return the priority of a deployment that the actor asks for once more: the same, if they may."""
    try:
        require_priority(actor, deployment.application, deployment.priority)
    except NotAllowedError:
        return NORMAL
    return deployment.priority


def set_priority(*, deployment: Deployment, priority: int, actor: User) -> Deployment:
    """Change the priority of a deployment that has not ended; its steps that wait follow.

    Raises PriorityError if it has ended, NotAllowedError as `require_priority` does.
    """
    require_priority(actor, deployment.application, priority)
    with transaction.atomic():
        deployment = Deployment.objects.select_for_update(no_key=True).get(pk=deployment.pk)
        if deployment.status in TERMINAL_STATUSES:
            raise PriorityError(
                f"Deployment {deployment.pk} has ended: its priority cannot be changed any more."
            )
        before = priority_name(deployment.priority)
        deployment.priority = priority
        deployment.save(update_fields=["priority"])
        record(
            actor=actor,
            action="deployment.priority",
            subject_type="deployment",
            subject_id=deployment.pk,
            subject=str(deployment),
            reason=f"From {before} to {priority_name(priority)}.",
            deployment_id=deployment.pk,
        )
    return deployment
