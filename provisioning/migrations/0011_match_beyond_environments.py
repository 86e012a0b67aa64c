"""Let resources be found beyond their environment: published ones, and uses that cross environments."""

from __future__ import annotations

from django.db import migrations, models
from django.db.models import Q

SCOPES = ["environment", "organisation", "global"]

CROSSES_SQL = """
CREATE FUNCTION conductor_consumer_crosses() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.crosses := (SELECT environment_id FROM provisioning_workload WHERE id = NEW.workload_id)
        <> (SELECT environment_id FROM provisioning_resource WHERE id = NEW.resource_id);
    RETURN NEW;
END $$;
CREATE TRIGGER consumer_crosses_truly
    BEFORE INSERT OR UPDATE OF workload_id, resource_id, crosses ON provisioning_resourceconsumer
    FOR EACH ROW EXECUTE FUNCTION conductor_consumer_crosses();

CREATE FUNCTION conductor_dependency_crosses() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.crosses := (SELECT environment_id FROM provisioning_resource WHERE id = NEW.source_id)
        <> (SELECT environment_id FROM provisioning_resource WHERE id = NEW.target_id);
    RETURN NEW;
END $$;
CREATE TRIGGER dependency_crosses_truly
    BEFORE INSERT OR UPDATE OF source_id, target_id, crosses ON provisioning_resourcedependency
    FOR EACH ROW EXECUTE FUNCTION conductor_dependency_crosses();
"""
CROSSES_REVERSE_SQL = """
DROP TRIGGER consumer_crosses_truly ON provisioning_resourceconsumer;
DROP FUNCTION conductor_consumer_crosses();
DROP TRIGGER dependency_crosses_truly ON provisioning_resourcedependency;
DROP FUNCTION conductor_dependency_crosses();
"""


class Migration(migrations.Migration):
    dependencies = [("provisioning", "0010_checks_and_imports")]

    operations = [
        migrations.AddField(
            model_name="deployment",
            name="scope",
            field=models.CharField(
                choices=[(scope, scope.capitalize()) for scope in SCOPES],
                default="environment",
                help_text="How far beyond its environment the plan looks for resources, or concerns any.",
                max_length=15,
            ),
        ),
        migrations.AddField(
            model_name="resource",
            name="published",
            field=models.BooleanField(
                default=False,
                help_text="Other organisations find it by criteria, in the scope global; staff decide.",
            ),
        ),
        migrations.AddField(
            model_name="resourceconsumer",
            name="crosses",
            field=models.BooleanField(
                default=False,
                editable=False,
                help_text="Its resource is in another environment than its workload; the database says so.",
            ),
        ),
        migrations.AddField(
            model_name="resourcedependency",
            name="crosses",
            field=models.BooleanField(
                default=False,
                editable=False,
                help_text="The two are in different environments; the database says so.",
            ),
        ),
        migrations.AlterField(
            model_name="resourceconsumer",
            name="params",
            field=models.JSONField(
                blank=True,
                help_text="The params it asked for, references bound to keys as its workload's environment "
                "names them; null if it named none.",
                null=True,
            ),
        ),
        migrations.AddIndex(
            model_name="deployment",
            index=models.Index(
                condition=Q(status="waiting"), fields=["environment"], name="deployment_waiting_idx"
            ),
        ),
        migrations.AddIndex(
            model_name="resourceconsumer",
            index=models.Index(
                condition=Q(crosses=True, state="active"),
                fields=["workload"],
                name="consumer_crossing_idx",
            ),
        ),
        migrations.AddIndex(
            model_name="resourcedependency",
            index=models.Index(
                condition=Q(crosses=True), fields=["target"], name="dependency_crossing_idx"
            ),
        ),
        migrations.AddConstraint(
            model_name="deployment",
            constraint=models.CheckConstraint(
                condition=Q(scope__in=SCOPES), name="deployment_scope_valid"
            ),
        ),
        migrations.AddConstraint(
            model_name="resource",
            constraint=models.CheckConstraint(
                condition=Q(published=False) | ~Q(match_slot=""),
                name="resource_published_in_slot",
            ),
        ),
        migrations.RunSQL(CROSSES_SQL, CROSSES_REVERSE_SQL),
    ]
