"""Tells the audit trail what happened; rows hold names for people, never secret values."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User

from provisioning.models import AuditEvent

NOBODY = "conductor"


def record(
    *,
    actor: User | None,
    action: str,
    subject_type: str,
    subject_id: object,
    subject: str,
    old_status: str = "",
    new_status: str = "",
    reason: str = "",
    deployment_id: Any = "",
) -> AuditEvent:
    """Write one audit event; without an actor it is Conductor itself that acted."""
    return AuditEvent.objects.create(
        actor=actor.username if actor else NOBODY,
        action=action,
        subject_type=subject_type,
        subject_id=str(subject_id),
        subject=subject,
        old_status=old_status,
        new_status=new_status,
        reason=reason,
        deployment_id=str(deployment_id),
    )
