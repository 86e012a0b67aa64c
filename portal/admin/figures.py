from __future__ import annotations

from django.contrib import admin

from portal.admin.base import LookOnlyAdmin
from provisioning.models import Figure


@admin.register(Figure)
class FigureAdmin(LookOnlyAdmin[Figure]):
    list_display = ("name", "labels", "value")
    search_fields = ("name",)
    ordering = ("name", "pk")
