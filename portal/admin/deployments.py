from __future__ import annotations

from django.contrib import admin

from portal.admin.base import LookOnlyAdmin, LookOnlyInline
from provisioning.models import Deployment, LogChunk, Step


class StepInline(LookOnlyInline):
    model = Step
    fields = ("position", "action", "resource", "status", "attempt", "blocked_by", "error")
    ordering = ("position",)


@admin.register(Deployment)
class DeploymentAdmin(LookOnlyAdmin[Deployment]):
    list_display = (
        "id",
        "kind",
        "application",
        "environment",
        "status",
        "priority",
        "requested_by",
        "created_at",
        "finished_at",
    )
    list_filter = ("status", "kind", "environment", "application")
    search_fields = ("application__name", "environment__name", "commit", "status_reason")
    list_select_related = ("application", "environment", "requested_by")
    date_hierarchy = "created_at"
    ordering = ("-pk",)
    exclude = ("score",)
    inlines = (StepInline,)


@admin.register(Step)
class StepAdmin(LookOnlyAdmin[Step]):
    list_display = (
        "id",
        "deployment",
        "action",
        "resource",
        "status",
        "attempt",
        "worker",
        "started_at",
        "finished_at",
    )
    list_filter = ("status", "action", "queue")
    search_fields = ("resource__key", "error", "blocked_by")
    list_select_related = ("deployment", "resource", "worker")
    ordering = ("-pk",)


@admin.register(LogChunk)
class LogChunkAdmin(LookOnlyAdmin[LogChunk]):
    list_display = ("step_id", "attempt", "sequence", "stream", "level", "excerpt", "created_at")
    list_filter = ("stream", "level")
    search_fields = ("text",)
    ordering = ("-pk",)

    @admin.display(description="Text")
    def excerpt(self, chunk: LogChunk) -> str:
        """Return the first hundred characters."""
        return chunk.text[:100]
