"""The state that drivers keep, who holds it, and what its tools may have made beside it."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from provisioning.models.resources import Resource


class StateVersion(models.Model):
    """One state of a resource as it was stored; the newest number counts.

    A trigger (`state_version_follows`) refuses a Terraform state that does not follow the newest one:
    one of another lineage, or without a higher serial. Of size 0, it says that the state was deleted.
    """

    resource = models.ForeignKey(Resource, models.CASCADE, related_name="state_versions")
    number = models.PositiveIntegerField()
    serial = models.BigIntegerField(
        null=True, blank=True, help_text="Terraform's count of changes; null for other drivers."
    )
    lineage = models.CharField(
        max_length=100, blank=True, help_text="Which Terraform state it is a version of."
    )
    step = models.ForeignKey(
        "provisioning.Step", models.SET_NULL, null=True, blank=True, related_name="state_versions"
    )
    attempt = models.PositiveIntegerField()
    stored_by = models.CharField(
        max_length=150, blank=True, help_text="The person who stored it; empty for a step."
    )
    data = models.BinaryField(help_text="Encrypted.")
    compressed = models.BooleanField(default=False, help_text="Before it was encrypted.")
    size = models.PositiveIntegerField(help_text="Bytes before encryption and compression.")
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


class StateLock(models.Model):
    """Who holds a state that Conductor serves to Terraform: a step's tool, or a person.

    A step's lock is good for as long as the step has no newer tool and is held; a person's until
    `expires_at`, which moves on with each request that carries it.
    """

    resource = models.OneToOneField(Resource, models.CASCADE, related_name="state_lock")
    lock_id = models.CharField(max_length=100)
    info = models.JSONField(help_text="What Terraform says of itself, for whoever finds it locked.")
    step = models.ForeignKey("provisioning.Step", models.CASCADE, null=True, blank=True)
    attempt = models.PositiveIntegerField(default=0, help_text="The attempt whose tool holds it.")
    person = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, null=True, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(step__isnull=False, person=None, expires_at=None)
                | Q(step=None, person__isnull=False, expires_at__isnull=False),
                name="state_lock_one_holder",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.resource_id} {self.lock_id}"


class ToolEvent(models.Model):
    """One thing that a tool said that it began or did, until that is compared with its state.

    It is what the tool's log says, so it is no proof.
    """

    resource = models.ForeignKey(Resource, models.CASCADE, related_name="tool_events")
    step = models.ForeignKey("provisioning.Step", models.CASCADE, related_name="tool_events")
    attempt = models.PositiveIntegerField(help_text="The attempt whose tool said it.")
    sequence = models.PositiveIntegerField(help_text="Its place among what that tool said.")
    event = models.CharField(max_length=20, help_text="Such as apply_complete.")
    action = models.CharField(max_length=20, help_text="Such as create.")
    address = models.CharField(max_length=1000)
    type = models.CharField(max_length=200)
    id_key = models.CharField(max_length=200, blank=True)
    id_value = models.CharField(max_length=1000, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["step", "attempt", "sequence"], name="tool_event_sequence_unique"
            ),
        ]
        indexes = [models.Index(fields=["resource"], name="tool_event_resource_idx")]

    def __str__(self) -> str:
        return f"{self.event} {self.address}"


class PossibleOrphan(models.Model):
    """One thing that a tool may have made and that the resource's state does not hold."""

    resource = models.ForeignKey(Resource, models.CASCADE, related_name="possible_orphans")
    step = models.ForeignKey("provisioning.Step", models.SET_NULL, null=True, blank=True)
    address = models.CharField(max_length=1000)
    type = models.CharField(max_length=200)
    id_key = models.CharField(max_length=200, blank=True)
    id_value = models.CharField(
        max_length=1000, blank=True, help_text="Empty: it was begun, and its id never heard."
    )
    remade = models.BooleanField(
        default=False, help_text="Another thing was made at its address since."
    )
    found_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["resource", "address", "id_value"], name="possible_orphan_unique"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.address} [{self.id_value}]"
