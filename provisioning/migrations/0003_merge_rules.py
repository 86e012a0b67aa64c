"""Let template versions say how several consumers' wishes become one."""

from __future__ import annotations

from django.db import migrations, models

VERSION_SQL = """
DROP TRIGGER template_version_immutable ON provisioning_resourcetemplateversion;
CREATE TRIGGER template_version_immutable BEFORE UPDATE ON provisioning_resourcetemplateversion
    FOR EACH ROW WHEN (
        OLD.state <> 'draft' AND (
            NEW.state = 'draft' OR NEW.template_id <> OLD.template_id OR NEW.version <> OLD.version
            OR NEW.digest <> OLD.digest OR NEW.archive <> OLD.archive
            OR NEW.params_schema <> OLD.params_schema OR NEW.outputs <> OLD.outputs
            OR NEW.config <> OLD.config OR NEW.uses <> OLD.uses
            OR NEW.deletion_policy <> OLD.deletion_policy
            OR NEW.merge_rules <> OLD.merge_rules OR NEW.shrink <> OLD.shrink
        )
    ) EXECUTE FUNCTION conductor_refuse_version_change();
"""
VERSION_REVERSE_SQL = """
DROP TRIGGER template_version_immutable ON provisioning_resourcetemplateversion;
CREATE TRIGGER template_version_immutable BEFORE UPDATE ON provisioning_resourcetemplateversion
    FOR EACH ROW WHEN (
        OLD.state <> 'draft' AND (
            NEW.state = 'draft' OR NEW.template_id <> OLD.template_id OR NEW.version <> OLD.version
            OR NEW.digest <> OLD.digest OR NEW.archive <> OLD.archive
            OR NEW.params_schema <> OLD.params_schema OR NEW.outputs <> OLD.outputs
            OR NEW.config <> OLD.config OR NEW.uses <> OLD.uses
            OR NEW.deletion_policy <> OLD.deletion_policy
        )
    ) EXECUTE FUNCTION conductor_refuse_version_change();
"""


class Migration(migrations.Migration):
    dependencies = [("provisioning", "0002_guards")]

    operations = [
        migrations.AddField(
            model_name="resourcetemplateversion",
            name="merge_rules",
            field=models.JSONField(
                blank=True,
                default=dict,
                help_text="{param: {rule, …}}: how several consumers' wishes become one; equal if unnamed.",
            ),
        ),
        migrations.AddField(
            model_name="resourcetemplateversion",
            name="shrink",
            field=models.CharField(
                choices=[("apply", "Apply"), ("propose", "Propose"), ("never", "Never")],
                default="apply",
                max_length=10,
            ),
        ),
        migrations.AddConstraint(
            model_name="resourcetemplateversion",
            constraint=models.CheckConstraint(
                condition=models.Q(("shrink__in", ["apply", "propose", "never"])),
                name="template_version_shrink_valid",
            ),
        ),
        migrations.AddField(
            model_name="resource",
            name="floor",
            field=models.JSONField(
                blank=True,
                default=dict,
                help_text="The params last brought about, if its template does not let them shrink.",
            ),
        ),
        migrations.AddField(
            model_name="deployment",
            name="shrink",
            field=models.BooleanField(
                default=False,
                help_text="Let parameters shrink whose template only proposes it.",
            ),
        ),
        migrations.RunSQL(VERSION_SQL, VERSION_REVERSE_SQL),
    ]
