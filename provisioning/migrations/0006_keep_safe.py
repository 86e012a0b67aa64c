"""Keep resources safe: grace periods, adopted resources, and maintenance that destroys one."""

from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models

GRACE_SQL = """
CREATE TRIGGER template_version_grace_immutable
    BEFORE UPDATE ON provisioning_resourcetemplateversion
    FOR EACH ROW WHEN (OLD.state <> 'draft' AND NEW.grace_seconds <> OLD.grace_seconds)
    EXECUTE FUNCTION conductor_refuse_version_change();
"""
GRACE_REVERSE_SQL = (
    "DROP TRIGGER template_version_grace_immutable ON provisioning_resourcetemplateversion;"
)


class Migration(migrations.Migration):
    dependencies = [("provisioning", "0005_matching")]

    operations = [
        migrations.AddField(
            model_name="deployment",
            name="forced",
            field=models.BooleanField(
                default=False,
                help_text="Destroys the resource whatever holds it; the reason says why.",
            ),
        ),
        migrations.AddField(
            model_name="deployment",
            name="reason",
            field=models.TextField(blank=True, help_text="Why somebody asked for it."),
        ),
        migrations.AddField(
            model_name="deployment",
            name="resource",
            field=models.ForeignKey(
                blank=True,
                help_text="What a maintenance destroys.",
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="maintenance",
                to="provisioning.resource",
            ),
        ),
        migrations.AddField(
            model_name="resource",
            name="adopted",
            field=models.BooleanField(
                default=False,
                help_text="Conductor did not make it, so no driver ever runs on it.",
            ),
        ),
        migrations.AddField(
            model_name="resource",
            name="grace_seconds",
            field=models.PositiveIntegerField(
                blank=True,
                help_text=(
                    "How long it outlives its last consumer, if shared; blank: as its template "
                    "says."
                ),
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="resource",
            name="grace_until",
            field=models.DateTimeField(
                blank=True,
                help_text="Nobody uses it: when it is destroyed if nobody joins.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="resourcetemplateversion",
            name="grace_seconds",
            field=models.PositiveIntegerField(
                default=0, help_text="How long a shared resource outlives its last consumer."
            ),
        ),
        migrations.RunSQL(GRACE_SQL, GRACE_REVERSE_SQL),
    ]
