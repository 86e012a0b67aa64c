"""What owners are asked and have allowed: approvals and grants."""

from __future__ import annotations

from typing import Self

from django.conf import settings
from django.contrib.auth.models import User
from django.db import models
from django.db.models import Q

from provisioning.models.deployments import Deployment
from provisioning.models.organisation import Application, Team
from provisioning.models.resources import Resource


class ApprovalKind(models.TextChoices):
    """What an approval is about."""

    RESOURCE = "resource", "Resource"
    """A deployment would use or change a resource of another team."""
    DEPLOYMENT = "deployment", "Deployment"
    """The deployment itself, because its environment is protected."""


class ApprovalStatus(models.TextChoices):
    """Where an approval is; every status but the first is final."""

    PENDING = "pending", "Pending"
    APPROVED = "approved", "Approved"
    REJECTED = "rejected", "Rejected"
    EXPIRED = "expired", "Expired"
    """Nobody decided in time."""
    WITHDRAWN = "withdrawn", "Withdrawn"
    """The deployment does not need the answer any more."""


class ApprovalQuerySet(models.QuerySet["Approval"]):
    """Approvals, chosen by who asks."""

    def visible_to(self, user: User) -> Self:
        """Keep those that the person's teams were asked or ask; staff see all."""
        if user.is_staff:
            return self
        teams = Team.objects.filter(memberships__user=user)
        return self.filter(Q(team__in=teams) | Q(deployment__application__team__in=teams))


class Approval(models.Model):
    """One question of a deployment to a team's owners, and their answer."""

    deployment = models.ForeignKey(Deployment, models.CASCADE, related_name="approvals")
    kind = models.CharField(max_length=10, choices=ApprovalKind.choices)
    resource = models.ForeignKey(
        Resource, models.CASCADE, null=True, blank=True, related_name="approvals"
    )
    key = models.CharField(max_length=600, blank=True, help_text="The resource's key.")
    team = models.ForeignKey(
        Team, models.PROTECT, related_name="approvals", help_text="Whose owners were asked."
    )
    asks = models.JSONField(help_text="The plan's question, as it was shown to the owners.")
    question_digest = models.CharField(
        max_length=64, help_text="Tells whether a later plan still asks the same."
    )
    asked_by = models.CharField(max_length=150)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="approvals"
    )
    status = models.CharField(
        max_length=10, choices=ApprovalStatus.choices, default=ApprovalStatus.PENDING
    )
    decided_by = models.CharField(max_length=150, blank=True)
    comment = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    decided_at = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField()

    objects = ApprovalQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["deployment", "resource"],
                condition=Q(status=ApprovalStatus.PENDING, kind=ApprovalKind.RESOURCE),
                name="approval_one_pending_per_resource",
            ),
            models.UniqueConstraint(
                fields=["deployment"],
                condition=Q(status=ApprovalStatus.PENDING, kind=ApprovalKind.DEPLOYMENT),
                name="approval_one_pending_per_deployment",
            ),
            models.CheckConstraint(
                condition=Q(status__in=ApprovalStatus.values), name="approval_status_valid"
            ),
            models.CheckConstraint(
                condition=Q(kind=ApprovalKind.RESOURCE, resource__isnull=False)
                | Q(kind=ApprovalKind.DEPLOYMENT, resource__isnull=True),
                name="approval_has_its_subject",
            ),
            models.CheckConstraint(
                condition=~Q(status=ApprovalStatus.REJECTED) | ~Q(comment=""),
                name="approval_rejected_with_comment",
            ),
        ]
        indexes = [
            models.Index(
                fields=["expires_at"],
                condition=Q(status=ApprovalStatus.PENDING),
                name="approval_pending_idx",
            )
        ]

    def __str__(self) -> str:
        return f"{self.key or f'deployment {self.deployment_id}'} asked of {self.team}"


class Grant(models.Model):
    """An owner's permission, given beforehand, for an application or a team to use a resource."""

    resource = models.ForeignKey(Resource, models.CASCADE, related_name="grants")
    application = models.ForeignKey(
        Application, models.CASCADE, null=True, blank=True, related_name="grants"
    )
    team = models.ForeignKey(Team, models.CASCADE, null=True, blank=True, related_name="grants")
    granted_by = models.CharField(max_length=150)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["resource", "application"], name="grant_one_per_application"
            ),
            models.UniqueConstraint(fields=["resource", "team"], name="grant_one_per_team"),
            models.CheckConstraint(
                condition=Q(application__isnull=False, team__isnull=True)
                | Q(application__isnull=True, team__isnull=False),
                name="grant_to_one",
            ),
        ]

    def __str__(self) -> str:
        to = f"application {self.application}" if self.application else f"team {self.team}"
        return f"{self.resource.key} for {to}"
