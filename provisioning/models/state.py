"""State that drivers keep, encrypted and versioned."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from provisioning.models.resources import Resource


class StateVersion(models.Model):
    """One state of a resource as its driver shipped it; the newest number counts."""

    resource = models.ForeignKey(Resource, models.CASCADE, related_name="state_versions")
    number = models.PositiveIntegerField()
    step = models.ForeignKey(
        "provisioning.Step", models.SET_NULL, null=True, related_name="state_versions"
    )
    attempt = models.PositiveIntegerField()
    data = models.BinaryField(help_text="Encrypted.")
    size = models.PositiveIntegerField(help_text="Bytes before encryption.")
    digest = models.CharField(max_length=64, help_text="Keyed MAC of the clear bytes.")
    created_at = models.DateTimeField(auto_now_add=True)
    lag_ms = models.PositiveIntegerField(
        null=True, help_text="How long after the tool had written it, it was stored here."
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["resource", "number"], name="state_version_number_unique"
            ),
        ]
        indexes = [
            models.Index(
                fields=["created_at"],
                condition=Q(lag_ms__isnull=False),
                name="state_version_lag_idx",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.resource_id} v{self.number}"
