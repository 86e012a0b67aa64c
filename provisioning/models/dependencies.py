"""The edges of the resource graph: what resources need."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from provisioning.models.resources import Resource


class DependencyKind(models.TextChoices):
    """Why a resource needs another."""

    STRONG = "strong", "Strong"
    """Declared with `dependsOn`."""
    WEAK = "weak", "Weak"
    OUTPUT = "output", "Output"
    """Its params use the other's outputs."""


class ResourceDependency(models.Model):
    """An edge of the resource graph: `source` needs `target`."""

    source = models.ForeignKey(Resource, models.CASCADE, related_name="dependencies")
    target = models.ForeignKey(Resource, models.PROTECT, related_name="dependents")
    kind = models.CharField(
        max_length=10, choices=DependencyKind.choices, default=DependencyKind.OUTPUT
    )
    crosses = models.BooleanField(
        default=False,
        editable=False,
        help_text="The two are in different environments; the database says so.",
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["source", "target"], name="dependency_unique"),
            models.CheckConstraint(condition=~Q(source=F("target")), name="dependency_not_self"),
            models.CheckConstraint(
                condition=Q(kind__in=DependencyKind.values), name="dependency_kind_valid"
            ),
        ]
        indexes = [
            models.Index(
                fields=["target"], condition=Q(crosses=True), name="dependency_crossing_idx"
            )
        ]

    def __str__(self) -> str:
        return f"{self.source_id} needs {self.target_id}"
