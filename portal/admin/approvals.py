from __future__ import annotations

from django.contrib import admin

from portal.admin.base import LookOnlyAdmin
from provisioning.models import Approval, Grant


@admin.register(Approval)
class ApprovalAdmin(LookOnlyAdmin[Approval]):
    list_display = (
        "id",
        "kind",
        "key",
        "team",
        "status",
        "asked_by",
        "decided_by",
        "created_at",
        "expires_at",
    )
    list_filter = ("status", "kind", "team")
    search_fields = ("key", "asked_by", "decided_by", "comment")
    list_select_related = ("team",)
    ordering = ("-pk",)


@admin.register(Grant)
class GrantAdmin(LookOnlyAdmin[Grant]):
    list_display = ("resource", "application", "team", "granted_by", "created_at")
    list_filter = ("team", "application")
    search_fields = ("resource__key", "application__name", "team__name", "granted_by")
    list_select_related = ("resource", "application", "team")
    ordering = ("-pk",)
