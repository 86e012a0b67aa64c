"""Maintenance mode: workers end what they run and begin nothing new."""

from __future__ import annotations

from typing import Self

from django.db import models
from django.db.models import F, OuterRef, Q

from provisioning.models.organisation import Environment


class MaintenanceModeQuerySet(models.QuerySet["MaintenanceMode"]):
    """Maintenance modes, chosen by where they hold."""

    def of(self, *environments: Environment | OuterRef | int) -> Self:
        """Keep what closes any of these environments: the mode of everywhere, and their own."""
        holds = Q(environment=None)
        for environment in environments:
            holds |= Q(environment=environment)
        return self.filter(holds).order_by(F("environment").asc(nulls_first=True))


class MaintenanceMode(models.Model):
    """While the row is there, no step begins on a resource of its environment, or on any."""

    environment = models.ForeignKey(
        Environment,
        models.CASCADE,
        null=True,
        blank=True,
        related_name="maintenance_modes",
        help_text="Where; blank: everywhere.",
    )
    reason = models.TextField(blank=True, help_text="Shown to everybody who deploys there.")
    since = models.DateTimeField(auto_now_add=True)
    begun_by = models.CharField(max_length=150, editable=False)

    objects = MaintenanceModeQuerySet.as_manager()

    class Meta:
        verbose_name = "maintenance mode"
        verbose_name_plural = "maintenance mode"
        constraints = [
            models.UniqueConstraint(
                fields=["environment"],
                nulls_distinct=False,
                name="maintenance_mode_one_per_place",
                violation_error_message="Maintenance is on there already.",
            ),
        ]

    def __str__(self) -> str:
        since = f"Maintenance since {self.since:%Y-%m-%d %H:%M} UTC"
        return f"{since}: {self.reason.rstrip('.')}." if self.reason else f"{since}."

    @property
    def seen_elsewhere(self) -> str:
        """Return the sentence for those in other environments."""
        return f"In {self.environment}: {self}"
