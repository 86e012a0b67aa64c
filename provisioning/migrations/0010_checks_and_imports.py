"""Let templates state checks, and resources be adopted by import."""

from __future__ import annotations

from django.db import migrations, models

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
    ]
