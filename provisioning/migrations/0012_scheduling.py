"""Let work be scheduled: priorities, limits, maintenance, draining, figures and regular tasks."""

from __future__ import annotations

from typing import Any

import django.core.validators
import django.db.models.deletion
from django.db import migrations, models

SCHEDULES = [
    ("conductor pools", "provisioning.workers.regular.tend_pools", 1),
    ("conductor expiry", "provisioning.workers.regular.expire", 1),
    ("conductor figures", "provisioning.workers.regular.count_figures", 1),
    ("conductor retention", "provisioning.workers.regular.forget_old", 60),
]


def add_schedules(apps: Any, _schema_editor: Any) -> None:
    schedule = apps.get_model("django_q", "Schedule")
    for name, task, minutes in SCHEDULES:
        schedule.objects.create(
            name=name,
            func=task,
            args="'conductor',",
            schedule_type="I",
            minutes=minutes,
            repeats=-1,
            cluster="conductor",
        )


def remove_schedules(apps: Any, _schema_editor: Any) -> None:
    schedule = apps.get_model("django_q", "Schedule")
    schedule.objects.filter(name__in=[name for name, *_ in SCHEDULES]).delete()


class Migration(migrations.Migration):
    dependencies = [
        ("provisioning", "0011_match_beyond_environments"),
        ("django_q", "0018_task_success_index"),
    ]

    operations = [
        migrations.CreateModel(
            name="Figure",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=100)),
                ("labels", models.JSONField(default=dict)),
                ("value", models.FloatField()),
            ],
        ),
        migrations.CreateModel(
            name="MaintenanceMode",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "reason",
                    models.TextField(blank=True, help_text="Shown to everybody who deploys there."),
                ),
                ("since", models.DateTimeField(auto_now_add=True)),
                ("begun_by", models.CharField(editable=False, max_length=150)),
            ],
            options={
                "verbose_name": "maintenance mode",
                "verbose_name_plural": "maintenance mode",
            },
        ),
        migrations.AddField(
            model_name="deployment",
            name="priority",
            field=models.IntegerField(
                default=0, help_text="Steps of deployments with a higher one are taken first."
            ),
        ),
        migrations.AddField(
            model_name="environment",
            name="max_concurrent",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="How many steps run on its resources at once; blank: as many as workers take.",
                null=True,
                validators=[django.core.validators.MinValueValidator(1)],
            ),
        ),
        migrations.AddField(
            model_name="resourcetemplate",
            name="max_concurrent",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="How many steps run on its resources at once; blank: as many as workers take.",
                null=True,
                validators=[django.core.validators.MinValueValidator(1)],
            ),
        ),
        migrations.AddField(
            model_name="stateversion",
            name="lag_ms",
            field=models.PositiveIntegerField(
                help_text="How long after the tool had written it, it was stored here.", null=True
            ),
        ),
        migrations.AddField(
            model_name="worker",
            name="draining",
            field=models.BooleanField(
                default=False, help_text="It ends what it runs, and takes nothing."
            ),
        ),
        migrations.AddIndex(
            model_name="auditevent",
            index=models.Index(
                condition=models.Q(("action", "worker.database_lost")),
                fields=["at"],
                name="audit_outage_idx",
            ),
        ),
        migrations.AddIndex(
            model_name="deployment",
            index=models.Index(
                condition=models.Q(
                    (
                        "status__in",
                        [
                            "pending_approval",
                            "pending_confirmation",
                            "waiting",
                            "running",
                            "cancelling",
                        ],
                    )
                ),
                fields=["status", "started_at"],
                name="deployment_unfinished_idx",
            ),
        ),
        migrations.AddIndex(
            model_name="deployment",
            index=models.Index(
                condition=models.Q(("finished_at__isnull", False)),
                fields=["finished_at"],
                name="deployment_finished_idx",
            ),
        ),
        migrations.AddIndex(
            model_name="stateversion",
            index=models.Index(
                condition=models.Q(("lag_ms__isnull", False)),
                fields=["created_at"],
                name="state_version_lag_idx",
            ),
        ),
        migrations.AddIndex(
            model_name="step",
            index=models.Index(
                models.F("queue"),
                models.OrderBy(models.F("started_at"), descending=True),
                condition=models.Q(("started_at__isnull", False)),
                name="step_started_idx",
            ),
        ),
        migrations.AddConstraint(
            model_name="deployment",
            constraint=models.CheckConstraint(
                condition=models.Q(("priority__gte", -100), ("priority__lte", 100)),
                name="deployment_priority_valid",
            ),
        ),
        migrations.AddConstraint(
            model_name="environment",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("max_concurrent", None), ("max_concurrent__gte", 1), _connector="OR"
                ),
                name="environment_max_concurrent_positive",
            ),
        ),
        migrations.AddConstraint(
            model_name="resourcetemplate",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("max_concurrent", None), ("max_concurrent__gte", 1), _connector="OR"
                ),
                name="resource_template_max_concurrent_positive",
            ),
        ),
        migrations.AddConstraint(
            model_name="figure",
            constraint=models.UniqueConstraint(fields=("name", "labels"), name="figure_unique"),
        ),
        migrations.AddField(
            model_name="maintenancemode",
            name="environment",
            field=models.ForeignKey(
                blank=True,
                help_text="Where; blank: everywhere.",
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="maintenance_modes",
                to="provisioning.environment",
            ),
        ),
        migrations.AddConstraint(
            model_name="maintenancemode",
            constraint=models.UniqueConstraint(
                fields=("environment",),
                name="maintenance_mode_one_per_place",
                nulls_distinct=False,
                violation_error_message="Maintenance is on there already.",
            ),
        ),
        migrations.AddIndex(
            model_name="step",
            index=models.Index(
                condition=models.Q(("lease_until__isnull", False), ("status", "pending")),
                fields=["lease_until"],
                name="step_lost_idx",
            ),
        ),
        migrations.RunPython(add_schedules, remove_schedules),
    ]
