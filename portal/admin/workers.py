from __future__ import annotations

from typing import cast

from django.contrib import admin
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest

from portal.admin.base import LookOnlyAdmin
from provisioning.models import Worker
from provisioning.services.workers import drain_worker


@admin.register(Worker)
class WorkerAdmin(LookOnlyAdmin[Worker]):
    list_display = (
        "host", "pid", "version", "queues", "tools", "sandbox", "draining", "last_seen_at", "stopped_at",
    )  # fmt: skip
    list_filter = ("host", "draining")
    search_fields = ("host",)
    ordering = ("-last_seen_at",)
    actions = ("drain", "resume")

    @admin.action(description="Drain: end what they run, take nothing new", permissions=["view"])
    def drain(self, request: HttpRequest, queryset: QuerySet[Worker]) -> None:
        """Drain the chosen workers."""
        for worker in queryset:
            drain_worker(worker=worker, draining=True, actor=cast(User, request.user))

    @admin.action(description="Resume: take steps again", permissions=["view"])
    def resume(self, request: HttpRequest, queryset: QuerySet[Worker]) -> None:
        """Let the chosen workers take steps again."""
        for worker in queryset:
            drain_worker(worker=worker, draining=False, actor=cast(User, request.user))
