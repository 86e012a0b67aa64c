"""Operating figures that only grow."""

from __future__ import annotations

from django.db import models


class Figure(models.Model):
    """A count or a sum over audit events of the past, which no retention can take back.

    The row named COUNTED_THROUGH holds the id of the last event that is in the others.
    """

    name = models.CharField(max_length=100)
    labels = models.JSONField(default=dict)
    value = models.FloatField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["name", "labels"], name="figure_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.labels}"


COUNTED_THROUGH = "counted_through"
