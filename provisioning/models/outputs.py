"""What resources give: to everybody who uses them, and to one user alone."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from provisioning.models.resources import Resource, ResourceConsumer

ONLY_ENCRYPTED = Q(sensitive=False, ciphertext="") | (
    Q(sensitive=True, value__isnull=True) & ~Q(ciphertext="")
)


class OutputValue(models.Model):
    """A named value; a sensitive one is stored only encrypted."""

    key = models.CharField(max_length=200)
    sensitive = models.BooleanField(default=False)
    value = models.JSONField(null=True, blank=True)
    ciphertext = models.TextField(blank=True)

    class Meta:
        abstract = True


class ResourceOutput(OutputValue):
    """One value a resource gives to everybody who uses it."""

    resource = models.ForeignKey(Resource, models.CASCADE, related_name="outputs")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["resource", "key"], name="output_key_unique"),
            models.CheckConstraint(
                condition=ONLY_ENCRYPTED, name="output_sensitive_only_encrypted"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.resource_id}.{self.key}"


class ConsumerOutput(OutputValue):
    """One value a resource gives to one who uses it, instead of its own: such as a password.

    That is a workload's alias (`consumer`), or a resource that takes its outputs (`dependent`). Once
    either uses the resource no more, the row tells that the driver has yet to take back what it gave.
    """

    resource = models.ForeignKey(Resource, models.CASCADE, related_name="consumer_outputs")
    consumer = models.ForeignKey(
        ResourceConsumer, models.CASCADE, null=True, related_name="own_outputs"
    )
    dependent = models.ForeignKey(Resource, models.CASCADE, null=True, related_name="own_outputs")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["resource", "consumer", "dependent", "key"],
                nulls_distinct=False,
                name="consumer_output_key_unique",
            ),
            models.CheckConstraint(
                condition=Q(consumer=None, dependent__isnull=False)
                | Q(consumer__isnull=False, dependent=None),
                name="consumer_output_of_one",
            ),
            models.CheckConstraint(
                condition=ONLY_ENCRYPTED, name="consumer_output_sensitive_only_encrypted"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.resource_id}.{self.key} for {self.consumer_id or self.dependent_id}"
