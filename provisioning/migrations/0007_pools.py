"""Pools: resources made before anybody asks for them."""

from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("provisioning", "0006_keep_safe"),
    ]

    operations = [
        migrations.CreateModel(
            name="ResourcePool",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=63)),
                ("params", models.JSONField(blank=True, default=dict)),
                (
                    "size",
                    models.PositiveIntegerField(
                        help_text="How many unclaimed members are kept ready."
                    ),
                ),
                (
                    "max_size",
                    models.PositiveIntegerField(
                        help_text="How many members there may be, the claimed included."
                    ),
                ),
                (
                    "max_concurrent",
                    models.PositiveIntegerField(
                        default=2, help_text="How many members are made at once to fill it."
                    ),
                ),
                (
                    "sharing_policy",
                    models.CharField(
                        choices=[("open", "Open"), ("closed", "Closed")],
                        default="open",
                        help_text="Whether other teams than its owner may claim.",
                        max_length=10,
                    ),
                ),
                (
                    "claim_seconds",
                    models.PositiveIntegerField(
                        blank=True,
                        help_text="How long a claim lasts; blank: until it is returned.",
                        null=True,
                    ),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.RemoveConstraint(
            model_name="resourceconsumer",
            name="consumer_mode_valid",
        ),
        migrations.AddField(
            model_name="resource",
            name="claimed_at",
            field=models.DateTimeField(
                blank=True, help_text="When it was claimed, or taken out of its pool.", null=True
            ),
        ),
        migrations.AlterField(
            model_name="resourceconsumer",
            name="mode",
            field=models.CharField(
                choices=[
                    ("private", "Private"),
                    ("application", "Application"),
                    ("shared", "Shared"),
                    ("existing", "Existing"),
                    ("match", "Match"),
                    ("pool", "Pool"),
                ],
                max_length=15,
            ),
        ),
        migrations.AddConstraint(
            model_name="resourceconsumer",
            constraint=models.UniqueConstraint(
                condition=models.Q(("mode", "pool"), ("state", "active")),
                fields=("resource",),
                name="consumer_one_claim_per_member",
            ),
        ),
        migrations.AddConstraint(
            model_name="resourceconsumer",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("mode__in", ["private", "application", "shared", "existing", "match", "pool"])
                ),
                name="consumer_mode_valid",
            ),
        ),
        migrations.AddField(
            model_name="resourcepool",
            name="environment",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="pools",
                to="provisioning.environment",
            ),
        ),
        migrations.AddField(
            model_name="resourcepool",
            name="owner_team",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="pools",
                to="provisioning.team",
            ),
        ),
        migrations.AddField(
            model_name="resourcepool",
            name="template_version",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="pools",
                to="provisioning.resourcetemplateversion",
            ),
        ),
        migrations.AddField(
            model_name="deployment",
            name="pool",
            field=models.ForeignKey(
                blank=True,
                help_text="What a maintenance fills.",
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="deployments",
                to="provisioning.resourcepool",
            ),
        ),
        migrations.AddField(
            model_name="resource",
            name="pool",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="members",
                to="provisioning.resourcepool",
            ),
        ),
        migrations.AddConstraint(
            model_name="resource",
            constraint=models.CheckConstraint(
                condition=models.Q(("claimed_at", None), ("pool__isnull", False), _connector="OR"),
                name="resource_claimed_of_pool",
            ),
        ),
        migrations.AddConstraint(
            model_name="resourcepool",
            constraint=models.UniqueConstraint(
                fields=("environment", "name"), name="pool_name_unique"
            ),
        ),
        migrations.AddConstraint(
            model_name="resourcepool",
            constraint=models.CheckConstraint(
                condition=models.Q(("size__lte", models.F("max_size"))),
                name="pool_size_within_max_size",
            ),
        ),
        migrations.AddConstraint(
            model_name="resourcepool",
            constraint=models.CheckConstraint(
                condition=models.Q(("max_concurrent__gte", 1)), name="pool_max_concurrent_positive"
            ),
        ),
        migrations.AddConstraint(
            model_name="resourcepool",
            constraint=models.CheckConstraint(
                condition=models.Q(("sharing_policy__in", ["open", "closed"])),
                name="pool_sharing_policy_valid",
            ),
        ),
        migrations.AddConstraint(
            model_name="resourcepool",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("claim_seconds", None), ("claim_seconds__gte", 1), _connector="OR"
                ),
                name="pool_claim_seconds_positive",
            ),
        ),
    ]
