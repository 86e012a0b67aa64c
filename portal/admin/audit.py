from __future__ import annotations

from django.contrib import admin

from portal.admin.base import LookOnlyAdmin
from provisioning.models import AuditEvent


@admin.register(AuditEvent)
class AuditEventAdmin(LookOnlyAdmin[AuditEvent]):
    list_display = ("at", "actor", "action", "subject", "old_status", "new_status", "reason")
    list_filter = ("action", "subject_type")
    search_fields = ("actor", "subject", "subject_id", "deployment_id", "reason")
    ordering = ("-pk",)
