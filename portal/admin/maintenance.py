from __future__ import annotations

from typing import Any, cast

from django.contrib import admin
from django.contrib.auth.models import User
from django.http import HttpRequest

from portal.admin.base import ConductorAdmin
from provisioning.models import MaintenanceMode
from provisioning.services.maintenance import begin_maintenance, end_maintenance


@admin.register(MaintenanceMode)
class MaintenanceModeAdmin(ConductorAdmin[MaintenanceMode]):
    """Maintenance begins by adding a row, and ends by deleting it."""

    list_display = ("environment", "since", "reason", "begun_by")
    list_select_related = ("environment",)
    list_display_links = None
    fields = ("environment", "reason")

    def has_change_permission(
        self, request: HttpRequest, obj: MaintenanceMode | None = None
    ) -> bool:
        """Refuse: end it and begin another."""
        return False

    def save_model(
        self, request: HttpRequest, obj: MaintenanceMode, form: Any, change: bool
    ) -> None:
        """Begin maintenance."""
        begun = begin_maintenance(
            environment=obj.environment, reason=obj.reason, actor=cast(User, request.user)
        )
        obj.pk, obj.since = begun.pk, begun.since

    def delete_model(self, request: HttpRequest, obj: MaintenanceMode) -> None:
        """End maintenance."""
        end_maintenance(environment=obj.environment, actor=cast(User, request.user))
