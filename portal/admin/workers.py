from __future__ import annotations

from django.contrib import admin

from portal.admin.base import LookOnlyAdmin
from provisioning.models import Worker


@admin.register(Worker)
class WorkerAdmin(LookOnlyAdmin[Worker]):
    list_display = (
        "host", "pid", "version", "queues", "tools", "sandbox", "last_seen_at", "stopped_at",
    )  # fmt: skip
    list_filter = ("host",)
    search_fields = ("host",)
    ordering = ("-last_seen_at",)
