from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin

from portal.admin.base import ConductorAdmin, LookOnlyAdmin
from provisioning.models import (
    Application,
    Environment,
    Membership,
    Organisation,
    Team,
    Workload,
)


class MembershipInline(admin.TabularInline[Membership, Team]):
    model = Membership
    extra = 0

    def has_view_permission(self, request: Any, obj: Any = None) -> bool:
        """Show the people to whoever may see the team."""
        return True

    has_add_permission = has_change_permission = has_delete_permission = has_view_permission


class ApplicationForm(forms.ModelForm[Application]):
    """Keep an application and its team in one organisation."""

    def clean(self) -> dict[str, Any]:
        """Refuse a team of another organisation."""
        data = super().clean() or {}
        team, organisation = data.get("team"), data.get("organisation")
        if team and organisation and team.organisation_id != organisation.pk:
            self.add_error("team", f"{team} belongs to another organisation.")
        return data


@admin.register(Organisation)
class OrganisationAdmin(ConductorAdmin[Organisation]):
    list_display = ("name", "created_at")
    search_fields = ("name",)
    readonly_fields = ("created_at",)

    def has_change_permission(self, request: Any, obj: Organisation | None = None) -> bool:
        """Refuse a new name: resources are referred to by it from other environments."""
        return obj is None and super().has_change_permission(request)


@admin.register(Team)
class TeamAdmin(ConductorAdmin[Team]):
    list_display = ("name", "organisation", "created_at")
    list_filter = ("organisation",)
    search_fields = ("name",)
    list_select_related = ("organisation",)
    readonly_fields = ("created_at",)
    inlines = (MembershipInline,)


@admin.register(Membership)
class MembershipAdmin(ConductorAdmin[Membership]):
    list_display = ("user", "team", "role")
    list_filter = ("role", "team")
    search_fields = ("user__username", "team__name")
    list_select_related = ("user", "team")


@admin.register(Application)
class ApplicationAdmin(ConductorAdmin[Application]):
    form = ApplicationForm
    list_display = ("name", "team", "organisation", "created_at")
    list_filter = ("organisation", "team")
    search_fields = ("name", "team__name")
    list_select_related = ("team", "organisation")
    readonly_fields = ("created_at",)


@admin.register(Environment)
class EnvironmentAdmin(ConductorAdmin[Environment]):
    list_display = (
        "name",
        "kind",
        "organisation",
        "queue",
        "max_concurrent",
        "protected",
        "created_at",
    )
    list_filter = ("organisation", "kind", "queue")
    search_fields = ("name",)
    list_select_related = ("organisation",)

    def get_readonly_fields(self, request: Any, obj: Environment | None = None) -> tuple[str, ...]:
        """Keep the name of an environment: resources are referred to by it from others."""
        return ("created_at",) if obj is None else ("created_at", "name", "organisation")


@admin.register(Workload)
class WorkloadAdmin(LookOnlyAdmin[Workload]):
    list_display = ("name", "application", "environment", "created_at", "removed_at")
    list_filter = ("environment", "application")
    search_fields = ("name", "application__name")
    list_select_related = ("application", "environment")
