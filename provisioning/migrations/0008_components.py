"""Let templates need further resources, and environments give resources their defaults."""

from __future__ import annotations

from django.db import migrations, models

COMPONENTS_SQL = """
CREATE TRIGGER template_version_needs_immutable
    BEFORE UPDATE ON provisioning_resourcetemplateversion
    FOR EACH ROW WHEN (
        OLD.state <> 'draft' AND (
            NEW.requirements <> OLD.requirements OR NEW.co_provision <> OLD.co_provision
            OR NEW.inputs <> OLD.inputs OR NEW.share_same <> OLD.share_same
            OR NEW.naming <> OLD.naming
        )
    ) EXECUTE FUNCTION conductor_refuse_version_change();
"""
COMPONENTS_REVERSE_SQL = (
    "DROP TRIGGER template_version_needs_immutable ON provisioning_resourcetemplateversion;"
)


class Migration(migrations.Migration):
    dependencies = [
        ("provisioning", "0007_pools"),
    ]

    operations = [
        migrations.AddField(
            model_name="environment",
            name="defaults",
            field=models.JSONField(
                blank=True,
                default=dict,
                help_text="{type, or *: {param: value}}: what resources get that nobody asks for.",
            ),
        ),
        migrations.AddField(
            model_name="resourcetemplateversion",
            name="co_provision",
            field=models.JSONField(
                blank=True,
                default=list,
                help_text="As requirements: what is provisioned beside it.",
            ),
        ),
        migrations.AddField(
            model_name="resourcetemplateversion",
            name="inputs",
            field=models.JSONField(
                blank=True, default=dict, help_text="{param: …}: what the template fills in itself."
            ),
        ),
        migrations.AddField(
            model_name="resourcetemplateversion",
            name="naming",
            field=models.JSONField(
                blank=True,
                default=dict,
                help_text="{prefix, length, alphabet} of the real things' names.",
            ),
        ),
        migrations.AddField(
            model_name="resourcetemplateversion",
            name="requirements",
            field=models.JSONField(
                blank=True,
                default=list,
                help_text="[{key, type, class, id, params, priority}]: what it needs besides itself.",
            ),
        ),
        migrations.AddField(
            model_name="resourcetemplateversion",
            name="share_same",
            field=models.JSONField(
                blank=True,
                default=list,
                help_text="Params in which needs must be the same to share one resource.",
            ),
        ),
        migrations.RunSQL(COMPONENTS_SQL, COMPONENTS_REVERSE_SQL),
    ]
