"""Let deployments be cancelled, timed out, retried and rolled back."""

from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models
from django.db.models import Q

VERSION_SQL = """
CREATE TRIGGER template_version_timeout_immutable
    BEFORE UPDATE ON provisioning_resourcetemplateversion
    FOR EACH ROW WHEN (
        OLD.state <> 'draft' AND NEW.timeout_seconds IS DISTINCT FROM OLD.timeout_seconds
    ) EXECUTE FUNCTION conductor_refuse_version_change();
"""
VERSION_REVERSE_SQL = (
    "DROP TRIGGER template_version_timeout_immutable ON provisioning_resourcetemplateversion;"
)


class Migration(migrations.Migration):
    dependencies = [
        ("provisioning", "0013_consumer_outputs"),
    ]

    operations = [
        migrations.AddField(
            model_name="deployment",
            name="deadline",
            field=models.DateTimeField(
                blank=True, help_text="When its time is over, on the database's clock.", null=True
            ),
        ),
        migrations.AddField(
            model_name="deployment",
            name="ends_as",
            field=models.CharField(
                blank=True,
                default="",
                help_text="What it becomes when its cancelling is over.",
                max_length=25,
            ),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="deployment",
            name="rollback",
            field=models.BooleanField(
                default=False,
                help_text="Destroy what it created and nobody else uses, if it does not succeed.",
            ),
        ),
        migrations.AddField(
            model_name="deployment",
            name="rollback_of",
            field=models.ForeignKey(
                blank=True,
                help_text="The deployment whose creations this maintenance destroys again.",
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="rollbacks",
                to="provisioning.deployment",
            ),
        ),
        migrations.AddField(
            model_name="deployment",
            name="timeout_seconds",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="How long it may run; blank: as CONDUCTOR_DEPLOYMENT_TIMEOUT_SECONDS says.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="resourcetemplateversion",
            name="timeout_seconds",
            field=models.PositiveIntegerField(
                blank=True, help_text="How long its driver may work at one resource.", null=True
            ),
        ),
        migrations.AddIndex(
            model_name="deployment",
            index=models.Index(
                condition=Q(("status", "running")),
                fields=["deadline"],
                name="deployment_deadline_idx",
            ),
        ),
        migrations.AddConstraint(
            model_name="deployment",
            constraint=models.UniqueConstraint(
                condition=~Q(("status__in", ["rejected", "expired", "superseded"])),
                fields=("retry_of",),
                name="deployment_one_retry",
            ),
        ),
        migrations.AddConstraint(
            model_name="deployment",
            constraint=models.UniqueConstraint(
                fields=("rollback_of",), name="deployment_one_rollback"
            ),
        ),
        migrations.AddConstraint(
            model_name="deployment",
            constraint=models.CheckConstraint(
                condition=Q(("rollback", False), ("kind", "deploy"), _connector="OR"),
                name="deployment_rollback_of_deploy",
            ),
        ),
        migrations.AddConstraint(
            model_name="deployment",
            constraint=models.CheckConstraint(
                condition=Q(("rollback_of", None), ("kind", "maintenance"), _connector="OR"),
                name="deployment_rollback_is_maintenance",
            ),
        ),
        migrations.AddConstraint(
            model_name="deployment",
            constraint=models.CheckConstraint(
                condition=Q(
                    ~Q(("status", "cancelling")),
                    ("ends_as__in", ["cancelled", "timed_out"]),
                    _connector="OR",
                ),
                name="deployment_cancelling_has_end",
            ),
        ),
        migrations.AddConstraint(
            model_name="deployment",
            constraint=models.CheckConstraint(
                condition=Q(
                    ("timeout_seconds", None), ("timeout_seconds__gte", 1), _connector="OR"
                ),
                name="deployment_timeout_positive",
            ),
        ),
        migrations.AddConstraint(
            model_name="resourcetemplateversion",
            constraint=models.CheckConstraint(
                condition=Q(
                    ("timeout_seconds", None), ("timeout_seconds__gte", 1), _connector="OR"
                ),
                name="template_version_timeout_positive",
            ),
        ),
        migrations.RunSQL(VERSION_SQL, VERSION_REVERSE_SQL),
    ]
