"""What happened, for ever."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

DATABASE_LOST = "worker.database_lost"
"""The action of a worker that could not reach the database for a while."""


class AuditEvent(models.Model):
    """One thing that happened; a trigger refuses to change or delete it.

    Rows hold text and no foreign keys, so that they outlive what they tell of.
    """

    at = models.DateTimeField(auto_now_add=True)
    actor = models.CharField(max_length=150)
    action = models.CharField(max_length=60, help_text="Such as deployment.running.")
    subject_type = models.CharField(max_length=30)
    subject_id = models.CharField(max_length=64)
    subject = models.CharField(max_length=600, help_text="A name for a person.")
    old_status = models.CharField(max_length=25, blank=True)
    new_status = models.CharField(max_length=25, blank=True)
    reason = models.TextField(blank=True)
    deployment_id = models.CharField(max_length=64, blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["subject_type", "subject_id"], name="audit_subject_idx"),
            models.Index(fields=["deployment_id"], name="audit_deployment_idx"),
            models.Index(fields=["at"], condition=Q(action=DATABASE_LOST), name="audit_outage_idx"),
        ]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} {self.actor} {self.action} {self.subject}"
