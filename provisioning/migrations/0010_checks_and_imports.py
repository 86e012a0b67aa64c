"""Let templates state checks, and resources be adopted by import."""

from __future__ import annotations

from django.db import migrations, models
from django.db.models import Q, deletion

CHECKS_SQL = """
CREATE TRIGGER template_version_checks_immutable
    BEFORE UPDATE ON provisioning_resourcetemplateversion
    FOR EACH ROW WHEN (OLD.state <> 'draft' AND NEW.checks <> OLD.checks)
    EXECUTE FUNCTION conductor_refuse_version_change();
"""
CHECKS_REVERSE_SQL = (
    "DROP TRIGGER template_version_checks_immutable ON provisioning_resourcetemplateversion;"
)


class Migration(migrations.Migration):
    dependencies = [("provisioning", "0009_surviving_workers")]

    operations = [
        migrations.AddField(
            model_name="resourcetemplateversion",
            name="checks",
            field=models.JSONField(
                blank=True,
                default=list,
                help_text=(
                    "[{condition, message}]: what each consumer's wish is compared with afterwards."
                ),
            ),
        ),
        migrations.RunSQL(CHECKS_SQL, CHECKS_REVERSE_SQL),
        migrations.AddField(
            model_name="resource",
            name="imports",
            field=models.JSONField(
                blank=True,
                default=dict,
                help_text="{place in the template: id} of what its driver still has to take in.",
            ),
        ),
        migrations.AddField(
            model_name="resource",
            name="import_changes",
            field=models.BooleanField(
                default=False, help_text="Taking it in may change, create or destroy besides."
            ),
        ),
        migrations.AddConstraint(
            model_name="resource",
            constraint=models.CheckConstraint(
                condition=Q(adopted=False) | Q(imports={}), name="resource_adopted_imports_nothing"
            ),
        ),
        migrations.AlterField(
            model_name="deployment",
            name="resource",
            field=models.ForeignKey(
                blank=True,
                help_text="What a maintenance destroys, or brings about.",
                null=True,
                on_delete=deletion.SET_NULL,
                related_name="maintenance",
                to="provisioning.resource",
            ),
        ),
        migrations.AddField(
            model_name="deployment",
            name="ensures",
            field=models.BooleanField(
                default=False, help_text="Brings the resource about, which is to be taken in."
            ),
        ),
        migrations.AddConstraint(
            model_name="deployment",
            constraint=models.CheckConstraint(
                condition=Q(ensures=False) | Q(kind="maintenance"),
                name="deployment_ensures_in_maintenance",
            ),
        ),
    ]
