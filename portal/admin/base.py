"""What all admin pages have in common: staff may look, few rows may be edited, edits are audited."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from django.contrib import admin
from django.contrib.auth.models import User
from django.db.models import Model
from django.forms import BaseModelFormSet, ModelForm
from django.http import HttpRequest

from provisioning.services.audit import record

Row = TypeVar("Row", bound=Model)
MASK = "••••••"


def is_staff(request: HttpRequest) -> bool:
    """Tell whether a platform engineer asks; their rights do not depend on Django's permissions."""
    return bool(request.user.is_active and request.user.is_staff)


class ConductorAdmin(admin.ModelAdmin[Row]):
    """Let platform engineers look at and edit rows, and leave an audit event of every edit."""

    list_per_page = 50
    show_full_result_count = False

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Show the model to staff."""
        return is_staff(request)

    def has_view_permission(self, request: HttpRequest, obj: Row | None = None) -> bool:
        """Show the rows to staff."""
        return is_staff(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Let staff add rows."""
        return is_staff(request)

    def has_change_permission(self, request: HttpRequest, obj: Row | None = None) -> bool:
        """Let staff edit rows."""
        return is_staff(request)

    def has_delete_permission(self, request: HttpRequest, obj: Row | None = None) -> bool:
        """Let staff delete rows, if nothing goes with them that may not be deleted."""
        return is_staff(request)

    def save_model(
        self, request: HttpRequest, obj: Row, form: ModelForm[Row], change: bool
    ) -> None:
        """Save a row and tell the audit trail who edited which fields."""
        super().save_model(request, obj, form, change)
        fields = ", ".join(form.changed_data)
        self._record(request, obj, "changed" if change else "created", f"In the admin: {fields}.")

    def save_formset(
        self, request: HttpRequest, form: Any, formset: BaseModelFormSet[Any, Any], change: bool
    ) -> None:
        """Save the rows edited along with a row, and tell the audit trail of each."""
        super().save_formset(request, form, formset, change)
        for row in formset.new_objects:
            self._record(request, row, "created", "In the admin.")
        for row, fields in formset.changed_objects:
            self._record(request, row, "changed", f"In the admin: {', '.join(fields)}.")
        for row in formset.deleted_objects:
            self._record(request, row, "deleted", "In the admin.")

    def delete_model(self, request: HttpRequest, obj: Row) -> None:
        """Delete a row and tell the audit trail who did."""
        self._record(request, obj, "deleted", "In the admin.")
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        """Delete the chosen rows one by one, so that each is audited."""
        for row in queryset:
            self.delete_model(request, row)

    def _record(self, request: HttpRequest, row: Model, verb: str, reason: str) -> None:
        noun = str(row._meta.verbose_name)
        record(
            actor=cast(User, request.user),
            action=f"{noun.replace(' ', '_')}.{verb}",
            subject_type=noun.replace(" ", "_"),
            subject_id=row.pk,
            subject=str(row),
            reason=reason,
        )


class LookOnlyAdmin(ConductorAdmin[Row]):
    """Show rows that only Conductor itself may write."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Row | None = None) -> bool:
        """Refuse."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Row | None = None) -> bool:
        """Refuse."""
        return False


class LookOnlyInline(admin.TabularInline[Any, Any]):
    """Show rows of a row, without editing."""

    extra = 0
    can_delete = False
    show_change_link = True

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Edit none of the fields, those that no form could hold included."""
        return [str(field) for field in self.fields or ()]

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Show the rows to staff."""
        return is_staff(request)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse."""
        return False
