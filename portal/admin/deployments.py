from __future__ import annotations

from typing import cast

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest

from portal.admin.base import LookOnlyAdmin, LookOnlyInline
from provisioning.exceptions import ConductorError
from provisioning.models import Deployment, LogChunk, Step
from provisioning.services.deployments.cancel import cancel_deployment


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
    actions = ("cancel",)

    @admin.action(description="Cancel: stop what runs, begin nothing more", permissions=["view"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Deployment]) -> None:
        """Cancel the chosen deployments; say why one cannot be."""
        for deployment in queryset.select_related("environment", "application"):
            try:
                cancel_deployment(deployment=deployment, actor=cast(User, request.user))
            except ConductorError as error:
                self.message_user(request, str(error), messages.ERROR)
            else:
                label = deployment.get_status_display().lower()
                told = f"Deployment {deployment.pk} is {label}."
                self.message_user(request, told, messages.SUCCESS)


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
