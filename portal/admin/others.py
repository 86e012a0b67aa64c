"""Takes back what other packages put into the admin."""

from __future__ import annotations

# Imported before the admin's own discovery comes to them, so that they are registered by now.
import django_q.admin
import rest_framework.authtoken.admin
from django.contrib import admin
from django.http import HttpRequest
from django_q.models import Failure, OrmQ, Schedule, Success
from rest_framework.authtoken.models import TokenProxy

from portal.admin.base import ConductorAdmin

__all__ = ["TokenAdmin", "django_q", "rest_framework"]

# A task names a function to call: whoever edits one runs code. What there is to see of the work
# stands in deployments, steps and workers.
admin.site.unregister([Failure, OrmQ, Schedule, Success])
admin.site.unregister(TokenProxy)


@admin.register(TokenProxy)
class TokenAdmin(ConductorAdmin[TokenProxy]):
    """Show who has a token, and take it away; the token itself is nobody's but its owner's."""

    list_display = ("user", "created")
    list_select_related = ("user",)
    search_fields = ("user__username",)
    fields = ("user", "created")

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Refuse: a token is shown once, where it is made."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: TokenProxy | None = None) -> bool:
        """Refuse."""
        return False
