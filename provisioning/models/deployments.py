"""What was asked for: deployments."""

from __future__ import annotations

from typing import Self

from django.conf import settings
from django.contrib.auth.models import User
from django.db import models
from django.db.models import Q

from provisioning.models.organisation import Application, Environment, Team
from provisioning.models.resources import Resource


class DeploymentKind(models.TextChoices):
    """What a deployment is for."""

    DEPLOY = "deploy", "Deploy"
    TEARDOWN = "teardown", "Teardown"
    MAINTENANCE = "maintenance", "Maintenance"


class DeploymentStatus(models.TextChoices):
    """Where a deployment is; exactly one terminal status is ever reached."""

    PENDING_APPROVAL = "pending_approval", "Pending approval"
    """Owners have been asked."""
    PENDING_CONFIRMATION = "pending_confirmation", "Pending confirmation"
    """The plan changed since it was shown; the requester has to agree again."""
    WAITING = "waiting", "Waiting"
    """Another deployment has unfinished work on what this one would change."""
    RUNNING = "running", "Running"
    CANCELLING = "cancelling", "Cancelling"
    """Cancelled, or over its time: it ends when the tools that run for it have stopped."""
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"
    TIMED_OUT = "timed_out", "Timed out"
    REJECTED = "rejected", "Rejected"
    EXPIRED = "expired", "Expired"
    SUPERSEDED = "superseded", "Superseded"
    """A newer one for the same application and environment took its place before it started."""


NOT_STARTED_STATUSES = [
    DeploymentStatus.PENDING_APPROVAL,
    DeploymentStatus.PENDING_CONFIRMATION,
    DeploymentStatus.WAITING,
]
STARTED_STATUSES = [DeploymentStatus.RUNNING, DeploymentStatus.CANCELLING]
STOPPED_STATUSES = [DeploymentStatus.CANCELLED, DeploymentStatus.TIMED_OUT]
RETRYABLE_STATUSES = [DeploymentStatus.FAILED, *STOPPED_STATUSES]
ENDED_UNSTARTED_STATUSES = [
    DeploymentStatus.REJECTED,
    DeploymentStatus.EXPIRED,
    DeploymentStatus.SUPERSEDED,
]
TERMINAL_STATUSES = [
    DeploymentStatus.SUCCEEDED,
    DeploymentStatus.FAILED,
    DeploymentStatus.CANCELLED,
    DeploymentStatus.TIMED_OUT,
    DeploymentStatus.REJECTED,
    DeploymentStatus.EXPIRED,
    DeploymentStatus.SUPERSEDED,
]


class Scope(models.TextChoices):
    """How far resources may be from the environment that uses them."""

    ENVIRONMENT = "environment", "Environment"
    """In it."""
    ORGANISATION = "organisation", "Organisation"
    """In any environment of the organisation."""
    GLOBAL = "global", "Global"
    """Also in other organisations, if they were published."""


PRIORITY_LIMIT = 100
"""A deployment's priority is between minus this and this."""


class DeploymentQuerySet(models.QuerySet["Deployment"]):
    """Deployments, chosen by who asks."""

    def visible_to(self, user: User) -> Self:
        """Keep those of their teams' applications, and maintenance of their teams' resources.

        Staff see all.
        """
        if user.is_staff:
            return self
        teams = Team.objects.filter(memberships__user=user)
        return self.filter(
            Q(application__team__in=teams)
            | Q(resource__owner_team__in=teams)
            | Q(pool__owner_team__in=teams)
        )


class Deployment(models.Model):
    """One request to bring an application's workloads to a state, or to remove them."""

    kind = models.CharField(max_length=15, choices=DeploymentKind.choices)
    application = models.ForeignKey(
        Application, models.CASCADE, null=True, blank=True, related_name="deployments"
    )
    environment = models.ForeignKey(Environment, models.CASCADE, related_name="deployments")
    status = models.CharField(max_length=25, choices=DeploymentStatus.choices)
    status_reason = models.TextField(
        blank=True, help_text="Why it is where it is, in a sentence: the blocker, the failure."
    )
    score = models.TextField(
        blank=True, help_text="The Score texts, encrypted: [[file, text], …] as JSON."
    )
    workload_names = models.JSONField(
        default=list, help_text="The workloads it covers; for a teardown, those it removes."
    )
    upgrade = models.BooleanField(
        default=False, help_text="Move resources to their template's newest version."
    )
    shrink = models.BooleanField(
        default=False, help_text="Let parameters shrink whose template only proposes it."
    )
    rollback = models.BooleanField(
        default=False,
        help_text="Destroy what it created and nobody else uses, if it does not succeed.",
    )
    timeout_seconds = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="How long it may run; blank: as CONDUCTOR_DEPLOYMENT_TIMEOUT_SECONDS says.",
    )
    commit = models.CharField(max_length=100, blank=True)
    priority = models.IntegerField(
        default=0, help_text="Steps of deployments with a higher one are taken first."
    )
    resource = models.ForeignKey(
        Resource,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="maintenance",
        help_text="What a maintenance destroys, or brings about.",
    )
    ensures = models.BooleanField(
        default=False, help_text="Brings the resource about, which is to be taken in."
    )
    pool = models.ForeignKey(
        "provisioning.ResourcePool",
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="deployments",
        help_text="What a maintenance fills.",
    )
    forced = models.BooleanField(
        default=False, help_text="Destroys the resource whatever holds it; the reason says why."
    )
    reason = models.TextField(blank=True, help_text="Why somebody asked for it.")
    plan = models.JSONField(default=dict)
    plan_digest = models.CharField(max_length=64)
    scope = models.CharField(
        max_length=15,
        choices=Scope.choices,
        default=Scope.ENVIRONMENT,
        help_text="How far beyond its environment the plan looks for resources, or concerns any.",
    )
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="deployments"
    )
    retry_of = models.ForeignKey(
        "self", models.SET_NULL, null=True, blank=True, related_name="retries"
    )
    rollback_of = models.ForeignKey(
        "self",
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="rollbacks",
        help_text="The deployment whose creations this maintenance destroys again.",
    )
    ends_as = models.CharField(
        max_length=25, blank=True, help_text="What it becomes when its cancelling is over."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    deadline = models.DateTimeField(
        null=True, blank=True, help_text="When its time is over, on the database's clock."
    )
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = DeploymentQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["application", "environment"],
                condition=Q(status__in=STARTED_STATUSES),
                name="deployment_one_running",
            ),
            models.CheckConstraint(
                condition=Q(status__in=DeploymentStatus.values), name="deployment_status_valid"
            ),
            models.CheckConstraint(
                condition=Q(kind__in=DeploymentKind.values), name="deployment_kind_valid"
            ),
            models.CheckConstraint(
                condition=Q(scope__in=Scope.values), name="deployment_scope_valid"
            ),
            models.CheckConstraint(
                condition=Q(application__isnull=False) | Q(kind=DeploymentKind.MAINTENANCE),
                name="deployment_has_application",
            ),
            models.CheckConstraint(
                condition=Q(ensures=False) | Q(kind=DeploymentKind.MAINTENANCE),
                name="deployment_ensures_in_maintenance",
            ),
            models.CheckConstraint(
                condition=Q(priority__gte=-PRIORITY_LIMIT, priority__lte=PRIORITY_LIMIT),
                name="deployment_priority_valid",
            ),
            models.UniqueConstraint(
                fields=["retry_of"],
                condition=~Q(status__in=ENDED_UNSTARTED_STATUSES),
                name="deployment_one_retry",
            ),
            models.UniqueConstraint(fields=["rollback_of"], name="deployment_one_rollback"),
            models.CheckConstraint(
                condition=Q(rollback=False) | Q(kind=DeploymentKind.DEPLOY),
                name="deployment_rollback_of_deploy",
            ),
            models.CheckConstraint(
                condition=Q(rollback_of=None) | Q(kind=DeploymentKind.MAINTENANCE),
                name="deployment_rollback_is_maintenance",
            ),
            models.CheckConstraint(
                condition=~Q(status=DeploymentStatus.CANCELLING) | Q(ends_as__in=STOPPED_STATUSES),
                name="deployment_cancelling_has_end",
            ),
            models.CheckConstraint(
                condition=Q(timeout_seconds=None) | Q(timeout_seconds__gte=1),
                name="deployment_timeout_positive",
            ),
        ]
        indexes = [
            models.Index(
                fields=["application", "environment", "status"], name="deployment_app_idx"
            ),
            models.Index(
                fields=["environment"],
                condition=Q(status=DeploymentStatus.WAITING),
                name="deployment_waiting_idx",
            ),
            models.Index(
                fields=["status", "started_at"],
                condition=Q(status__in=[*NOT_STARTED_STATUSES, *STARTED_STATUSES]),
                name="deployment_unfinished_idx",
            ),
            models.Index(
                fields=["finished_at"],
                condition=Q(finished_at__isnull=False),
                name="deployment_finished_idx",
            ),
            models.Index(
                fields=["deadline"],
                condition=Q(status=DeploymentStatus.RUNNING),
                name="deployment_deadline_idx",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.pk}"
