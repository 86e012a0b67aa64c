"""What is done for a deployment: its steps, and what their tools said."""

from __future__ import annotations

from typing import Self

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from provisioning.models.deployments import Deployment
from provisioning.models.resources import Resource


class StepAction(models.TextChoices):
    """The only two things a step does."""

    ENSURE = "ensure", "Ensure"
    DESTROY = "destroy", "Destroy"


class StepStatus(models.TextChoices):
    """Where a step is."""

    PENDING = "pending", "Pending"
    RUNNING = "running", "Running"
    RECOVERING = "recovering", "Recovering"
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed"
    BLOCKED = "blocked", "Blocked"
    """A step it needs failed; `blocked_by` names the resource."""
    CANCELLED = "cancelled", "Cancelled"


BUSY_STEP_STATUSES = [StepStatus.RUNNING, StepStatus.RECOVERING]
UNFINISHED_STEP_STATUSES = [StepStatus.PENDING, *BUSY_STEP_STATUSES]


class StepQuerySet(models.QuerySet["Step"]):
    """Steps, chosen by what becomes of them."""

    def held(self) -> Self:
        """Keep those whose tool may run: workers have them, or one lost them a moment ago."""
        lost = Q(status=StepStatus.PENDING, lease_until__gt=Now())
        return self.filter(Q(status__in=[StepStatus.RUNNING, StepStatus.RECOVERING]) | lost)


class Step(models.Model):
    """Ensure or destroy one resource for one deployment."""

    deployment = models.ForeignKey(Deployment, models.CASCADE, related_name="steps")
    resource = models.ForeignKey(Resource, models.PROTECT, related_name="steps")
    action = models.CharField(max_length=10, choices=StepAction.choices)
    status = models.CharField(max_length=15, choices=StepStatus.choices, default=StepStatus.PENDING)
    position = models.PositiveIntegerField(help_text="Place in the plan's order.")
    queue = models.CharField(max_length=50, default="default")
    needs = models.ManyToManyField(
        "self",
        symmetrical=False,
        related_name="needed_by",
        blank=True,
        help_text="Steps of the same deployment that must have succeeded first.",
    )
    attempt = models.PositiveIntegerField(default=0, help_text="Counts claims; fences writes.")
    tool_attempt = models.PositiveIntegerField(
        default=0,
        help_text="The attempt whose tool may reach its external state; later attempts may follow it.",
    )
    worker = models.ForeignKey(
        "provisioning.Worker", models.SET_NULL, null=True, blank=True, related_name="steps"
    )
    process = models.CharField(
        max_length=60, blank=True, help_text="The process that has it: its id and when it began."
    )
    lease_until = models.DateTimeField(
        null=True,
        blank=True,
        help_text="While it runs: when another worker may take it. Then: when one of another host may.",
    )
    losses = models.PositiveIntegerField(
        default=0, help_text="How many attempts were lost with their worker."
    )
    driver_ran = models.BooleanField(
        default=False, help_text="False for a no-op: the applied input already was the wanted one."
    )
    blocked_by = models.CharField(max_length=600, blank=True)
    error = models.TextField(blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = StepQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["resource"],
                condition=Q(status__in=BUSY_STEP_STATUSES),
                name="step_one_at_a_time",
            ),
            models.UniqueConstraint(
                fields=["deployment", "resource"], name="step_one_per_resource"
            ),
            models.CheckConstraint(
                condition=Q(status__in=StepStatus.values), name="step_status_valid"
            ),
            models.CheckConstraint(
                condition=Q(action__in=StepAction.values), name="step_action_valid"
            ),
            models.CheckConstraint(
                condition=~Q(status=StepStatus.RUNNING)
                | Q(lease_until__isnull=False, attempt__gte=1),
                name="step_running_has_lease",
            ),
        ]
        indexes = [
            models.Index(
                fields=["queue", "deployment", "position"],
                condition=Q(status=StepStatus.PENDING),
                name="step_pending_idx",
            ),
            models.Index(
                fields=["lease_until"],
                condition=Q(status__in=BUSY_STEP_STATUSES),
                name="step_lease_idx",
            ),
            models.Index(
                fields=["lease_until"],
                condition=Q(status=StepStatus.PENDING, lease_until__isnull=False),
                name="step_lost_idx",
            ),
            models.Index(
                "queue",
                models.F("started_at").desc(),
                condition=Q(started_at__isnull=False),
                name="step_started_idx",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.resource_id} ({self.pk})"


class LogChunk(models.Model):
    """A piece of what a step's tool said, in order; secrets are masked before it is written."""

    step = models.ForeignKey(Step, models.CASCADE, related_name="log_chunks")
    attempt = models.PositiveIntegerField()
    sequence = models.PositiveIntegerField()
    stream = models.CharField(max_length=10, default="stdout")
    level = models.CharField(max_length=10, default="info")
    text = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["step", "attempt", "sequence"], name="log_chunk_sequence_unique"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.step_id}/{self.attempt}/{self.sequence}"
