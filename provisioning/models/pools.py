"""Pools: resources made before anybody asks for them, for whoever claims one."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from provisioning.models.catalog import ResourceTemplateVersion
from provisioning.models.organisation import Environment, Team
from provisioning.models.resources import SharingPolicy


class ResourcePool(models.Model):
    """So many equal resources kept ready in one environment; its members are resources."""

    environment = models.ForeignKey(Environment, models.PROTECT, related_name="pools")
    owner_team = models.ForeignKey(Team, models.PROTECT, related_name="pools")
    name = models.CharField(max_length=63)
    template_version = models.ForeignKey(
        ResourceTemplateVersion, models.PROTECT, related_name="pools"
    )
    params = models.JSONField(default=dict, blank=True)
    size = models.PositiveIntegerField(help_text="How many unclaimed members are kept ready.")
    max_size = models.PositiveIntegerField(
        help_text="How many members there may be, the claimed included."
    )
    max_concurrent = models.PositiveIntegerField(
        default=2, help_text="How many members are made at once to fill it."
    )
    sharing_policy = models.CharField(
        max_length=10,
        choices=[(each.value, each.label) for each in (SharingPolicy.OPEN, SharingPolicy.CLOSED)],
        default=SharingPolicy.OPEN,
        help_text="Whether other teams than its owner may claim.",
    )
    claim_seconds = models.PositiveIntegerField(
        null=True, blank=True, help_text="How long a claim lasts; blank: until it is returned."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["environment", "name"], name="pool_name_unique"),
            models.CheckConstraint(
                condition=Q(size__lte=F("max_size")), name="pool_size_within_max_size"
            ),
            models.CheckConstraint(
                condition=Q(max_concurrent__gte=1), name="pool_max_concurrent_positive"
            ),
            models.CheckConstraint(
                condition=Q(sharing_policy__in=[SharingPolicy.OPEN, SharingPolicy.CLOSED]),
                name="pool_sharing_policy_valid",
            ),
            models.CheckConstraint(
                condition=Q(claim_seconds=None) | Q(claim_seconds__gte=1),
                name="pool_claim_seconds_positive",
            ),
        ]

    def __str__(self) -> str:
        return self.name
