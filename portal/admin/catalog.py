from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from portal.admin.base import ConductorAdmin, LookOnlyAdmin, LookOnlyInline
from provisioning.exceptions import ConductorError
from provisioning.models import (
    Organisation,
    ResourceTemplate,
    ResourceTemplateVersion,
    TemplateRule,
)
from provisioning.services.catalog import RematchError, deprecate_version, guarded


class VersionInline(LookOnlyInline):
    model = ResourceTemplateVersion
    fields = ("version", "state", "digest", "source", "created_at")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Leave the archives where they are."""
        return super().get_queryset(request).defer("archive")


class RuleForm(forms.ModelForm[TemplateRule]):
    """Keep a rule within one organisation; equal rules are refused by the model's constraint."""

    force = forms.BooleanField(
        required=False, help_text="Save it also where live requirements would match differently."
    )

    def clean(self) -> dict[str, Any]:
        """Refuse what belongs to another organisation."""
        data = super().clean() or {}
        organisation = data.get("organisation")
        for name in ("template", "environment", "application"):
            row = data.get(name)
            if row and organisation and row.organisation_id != organisation.pk:
                self.add_error(name, f"{row} belongs to another organisation.")
        return data


@admin.register(ResourceTemplate)
class ResourceTemplateAdmin(ConductorAdmin[ResourceTemplate]):
    list_display = ("name", "type", "class_name", "driver", "owner_team", "organisation")
    list_filter = ("organisation", "driver", "owner_team")
    search_fields = ("name", "type", "description")
    list_select_related = ("owner_team", "organisation")
    fields = (
        "organisation",
        "name",
        "type",
        "class_name",
        "driver",
        "description",
        "owner_team",
        "max_concurrent",
        "created_at",
    )
    readonly_fields = ("organisation", "name", "type", "class_name", "driver", "created_at")
    inlines = (VersionInline,)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Refuse: templates come from files, by `catalog sync`."""
        return False


@admin.register(ResourceTemplateVersion)
class ResourceTemplateVersionAdmin(LookOnlyAdmin[ResourceTemplateVersion]):
    list_display = ("template", "version", "state", "digest", "created_at")
    list_filter = ("state", "template__organisation", "template__driver")
    search_fields = ("template__name", "version", "digest", "source")
    list_select_related = ("template",)
    exclude = ("archive",)
    actions = ("deprecate",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ResourceTemplateVersion]:
        """Leave the archives where they are."""
        return super().get_queryset(request).defer("archive")

    @admin.action(description="Deprecate: serve no new resources", permissions=["view"])
    def deprecate(self, request: HttpRequest, queryset: QuerySet[ResourceTemplateVersion]) -> None:
        """Deprecate the chosen versions; say why one cannot be."""
        for version in queryset.select_related("template"):
            try:
                deprecate_version(version=version, actor=cast(User, request.user))
            except ConductorError as error:
                self.message_user(request, str(error), messages.ERROR)
            else:
                name = f"{version.template.name} {version.version}"
                self.message_user(request, f"{name} is deprecated.", messages.SUCCESS)


@admin.register(TemplateRule)
class TemplateRuleAdmin(ConductorAdmin[TemplateRule]):
    form = RuleForm
    list_display = (
        "type",
        "class_name",
        "resource_id",
        "environment_kind",
        "environment",
        "application",
        "template",
    )
    list_filter = ("organisation", "environment_kind", "environment", "template")
    search_fields = ("type", "class_name", "resource_id", "template__name")
    list_select_related = ("environment", "application", "template")

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Add or change a rule, unless that would match live requirements differently."""
        answer = partial(super().changeform_view, request, object_id, form_url, extra_context)
        return self._guarded(request, object_id, answer)

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Delete a rule, unless that would match live requirements differently."""
        return self._guarded(
            request, object_id, partial(super().delete_view, request, object_id, extra_context)
        )

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Leave out the deletion of several at once, which would ask nobody."""
        return {
            name: action
            for name, action in super().get_actions(request).items()
            if name != "delete_selected"
        }

    def _guarded(
        self, request: HttpRequest, object_id: str | None, answer: Callable[[], HttpResponse]
    ) -> HttpResponse:
        """Let the view write only what matches live requirements as before, or is forced."""
        rule = self.get_object(request, object_id) if object_id else None
        chosen = str(request.POST.get("organisation", ""))
        organisation = (
            rule.organisation
            if rule
            else Organisation.objects.filter(pk=int(chosen) if chosen.isdecimal() else 0).first()
        )
        if request.method != "POST" or organisation is None:
            return answer()
        try:
            with transaction.atomic(), guarded(organisation, force="force" in request.POST):
                return answer()
        except RematchError as error:
            self.message_user(request, str(error), messages.ERROR)
            return redirect(request.path)
