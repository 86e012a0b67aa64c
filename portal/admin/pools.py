from __future__ import annotations

from django.contrib import admin

from portal.admin.base import LookOnlyAdmin
from provisioning.models import ResourcePool


@admin.register(ResourcePool)
class ResourcePoolAdmin(LookOnlyAdmin[ResourcePool]):
    list_display = (
        "name",
        "environment",
        "owner_team",
        "template_version",
        "size",
        "max_size",
        "max_concurrent",
        "sharing_policy",
        "claim_seconds",
    )
    list_filter = ("environment", "owner_team", "sharing_policy")
    search_fields = ("name", "template_version__template__name")
    list_select_related = ("environment", "owner_team", "template_version__template")
