"""Let owners be asked: approvals, grants, sharing policies and protected environments."""

from __future__ import annotations

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models
from django.db.models import Q

TO_USER = migrations.swappable_dependency(settings.AUTH_USER_MODEL)


class Migration(migrations.Migration):
    dependencies = [("provisioning", "0003_merge_rules"), TO_USER]

    operations = [
        migrations.AddField(
            model_name="environment",
            name="protected",
            field=models.BooleanField(
                default=False, help_text="Each deployment to it has to be approved."
            ),
        ),
        migrations.AddField(
            model_name="resource",
            name="sharing_policy",
            field=models.CharField(
                choices=[("open", "Open"), ("approval", "Approval"), ("closed", "Closed")],
                default="approval",
                max_length=10,
            ),
        ),
        migrations.AddConstraint(
            model_name="resource",
            constraint=models.CheckConstraint(
                condition=Q(sharing_policy__in=["open", "approval", "closed"]),
                name="resource_sharing_policy_valid",
            ),
        ),
        migrations.CreateModel(
            name="Approval",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[("resource", "Resource"), ("deployment", "Deployment")],
                        max_length=10,
                    ),
                ),
                (
                    "key",
                    models.CharField(blank=True, help_text="The resource's key.", max_length=600),
                ),
                (
                    "asks",
                    models.JSONField(
                        help_text="The plan's question, as it was shown to the owners."
                    ),
                ),
                (
                    "question_digest",
                    models.CharField(
                        help_text="Tells whether a later plan still asks the same.", max_length=64
                    ),
                ),
                ("asked_by", models.CharField(max_length=150)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("pending", "Pending"),
                            ("approved", "Approved"),
                            ("rejected", "Rejected"),
                            ("expired", "Expired"),
                            ("withdrawn", "Withdrawn"),
                        ],
                        default="pending",
                        max_length=10,
                    ),
                ),
                ("decided_by", models.CharField(blank=True, max_length=150)),
                ("comment", models.TextField(blank=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("decided_at", models.DateTimeField(blank=True, null=True)),
                ("expires_at", models.DateTimeField()),
                (
                    "deployment",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="approvals",
                        to="provisioning.deployment",
                    ),
                ),
                (
                    "requested_by",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="approvals",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "resource",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="approvals",
                        to="provisioning.resource",
                    ),
                ),
                (
                    "team",
                    models.ForeignKey(
                        help_text="Whose owners were asked.",
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="approvals",
                        to="provisioning.team",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        condition=Q(status="pending"),
                        fields=["expires_at"],
                        name="approval_pending_idx",
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(
                        condition=Q(kind="resource", status="pending"),
                        fields=("deployment", "resource"),
                        name="approval_one_pending_per_resource",
                    ),
                    models.UniqueConstraint(
                        condition=Q(kind="deployment", status="pending"),
                        fields=("deployment",),
                        name="approval_one_pending_per_deployment",
                    ),
                    models.CheckConstraint(
                        condition=Q(
                            status__in=["pending", "approved", "rejected", "expired", "withdrawn"]
                        ),
                        name="approval_status_valid",
                    ),
                    models.CheckConstraint(
                        condition=Q(kind="resource", resource__isnull=False)
                        | Q(kind="deployment", resource__isnull=True),
                        name="approval_has_its_subject",
                    ),
                    models.CheckConstraint(
                        condition=~Q(status="rejected") | ~Q(comment=""),
                        name="approval_rejected_with_comment",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Grant",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("granted_by", models.CharField(max_length=150)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "application",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="grants",
                        to="provisioning.application",
                    ),
                ),
                (
                    "resource",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="grants",
                        to="provisioning.resource",
                    ),
                ),
                (
                    "team",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="grants",
                        to="provisioning.team",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("resource", "application"), name="grant_one_per_application"
                    ),
                    models.UniqueConstraint(fields=("resource", "team"), name="grant_one_per_team"),
                    models.CheckConstraint(
                        condition=Q(application__isnull=False, team__isnull=True)
                        | Q(application__isnull=True, team__isnull=False),
                        name="grant_to_one",
                    ),
                ],
            },
        ),
    ]
