from __future__ import annotations

from typing import Any, cast

from django import forms
from django.contrib import admin
from django.contrib.auth.models import User
from django.http import HttpRequest

from portal.admin.base import ConductorAdmin
from provisioning.exceptions import ConductorError
from provisioning.models import Credential
from provisioning.services.credentials import check_credential, remove_credential, set_credential


class CredentialForm(forms.ModelForm[Credential]):
    """Take a value that is never shown again, or a reference."""

    value = forms.CharField(
        widget=forms.Textarea(attrs={"rows": 4, "autocomplete": "off"}),
        required=False,
        strip=False,
        help_text="It is stored encrypted and never shown again.",
    )

    class Meta:
        model = Credential
        fields = ("environment", "name", "reference", "as_file")

    def clean(self) -> dict[str, Any]:
        """Refuse what the service would refuse."""
        data = super().clean() or {}
        try:
            check_credential(
                str(data.get("name") or self.instance.name),
                data.get("value") or "",
                data.get("reference") or "",
            )
        except ConductorError as error:
            raise forms.ValidationError(str(error)) from error
        return data


@admin.register(Credential)
class CredentialAdmin(ConductorAdmin[Credential]):
    form = CredentialForm
    list_display = ("name", "environment", "reference", "as_file", "updated_at")
    list_filter = ("environment",)
    list_select_related = ("environment",)
    search_fields = ("name",)

    def get_readonly_fields(self, request: HttpRequest, obj: Credential | None = None) -> list[str]:
        """Keep a credential where it is: another is another row."""
        return ["environment", "name"] if obj else []

    def save_model(
        self, request: HttpRequest, obj: Credential, form: forms.ModelForm[Credential], change: bool
    ) -> None:
        """Keep the credential."""
        kept = set_credential(
            environment=obj.environment,
            name=obj.name,
            value=form.cleaned_data["value"],
            reference=obj.reference,
            as_file=obj.as_file,
            actor=cast(User, request.user),
        )
        obj.pk = kept.pk

    def delete_model(self, request: HttpRequest, obj: Credential) -> None:
        """Forget the credential."""
        remove_credential(
            environment=obj.environment, name=obj.name, actor=cast(User, request.user)
        )
