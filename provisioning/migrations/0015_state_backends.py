from __future__ import annotations

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

import provisioning.models.organisation

FOLLOWS_SQL = """
CREATE FUNCTION conductor_check_state_follows() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE newest record;
BEGIN
    SELECT serial, lineage, size INTO newest FROM provisioning_stateversion
        WHERE resource_id = NEW.resource_id ORDER BY number DESC LIMIT 1;
    IF FOUND AND newest.serial IS NOT NULL AND newest.size > 0 AND (
        NEW.serial IS NULL OR NEW.serial <= newest.serial OR NEW.lineage <> newest.lineage
    ) THEN
        RAISE EXCEPTION 'a state of lineage % and serial % cannot follow one of lineage % and serial %',
            NEW.lineage, NEW.serial, newest.lineage, newest.serial
            USING ERRCODE = 'check_violation', CONSTRAINT = 'state_version_follows';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER state_version_follows BEFORE INSERT ON provisioning_stateversion
    FOR EACH ROW EXECUTE FUNCTION conductor_check_state_follows();
"""
FOLLOWS_REVERSE_SQL = """
DROP TRIGGER state_version_follows ON provisioning_stateversion;
DROP FUNCTION conductor_check_state_follows();
"""
# What a first, unfinished attempt has stored so far is at Conductor as well.
MANAGED_SQL = """
UPDATE provisioning_resource SET state_backend = 'managed' WHERE state_backend = 'conductor';
UPDATE provisioning_resource resource
    SET state_backend = 'managed', state_location = 'resources/' || resource.id
    FROM provisioning_resourcetemplateversion version
    JOIN provisioning_resourcetemplate template ON template.id = version.template_id
    WHERE version.id = resource.template_version_id AND template.driver = 'terraform'
        AND resource.state_backend = ''
        AND EXISTS (SELECT FROM provisioning_stateversion state WHERE state.resource_id = resource.id);
"""
MANAGED_REVERSE_SQL = """
UPDATE provisioning_resource SET state_backend = 'conductor' WHERE state_backend = 'managed';
"""


class Migration(migrations.Migration):
    dependencies = [
        ("provisioning", "0014_cancel_and_retry"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="PossibleOrphan",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("address", models.CharField(max_length=1000)),
                ("type", models.CharField(max_length=200)),
                ("id_key", models.CharField(blank=True, max_length=200)),
                (
                    "id_value",
                    models.CharField(
                        blank=True,
                        help_text="Empty: it was begun, and its id never heard.",
                        max_length=1000,
                    ),
                ),
                (
                    "remade",
                    models.BooleanField(
                        default=False, help_text="Another thing was made at its address since."
                    ),
                ),
                ("found_at", models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.CreateModel(
            name="StateLock",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("lock_id", models.CharField(max_length=100)),
                (
                    "info",
                    models.JSONField(
                        help_text="What Terraform says of itself, for whoever finds it locked."
                    ),
                ),
                (
                    "attempt",
                    models.PositiveIntegerField(
                        default=0, help_text="The attempt whose tool holds it."
                    ),
                ),
                ("expires_at", models.DateTimeField(blank=True, null=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.CreateModel(
            name="ToolEvent",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "attempt",
                    models.PositiveIntegerField(help_text="The attempt whose tool said it."),
                ),
                (
                    "sequence",
                    models.PositiveIntegerField(help_text="Its place among what that tool said."),
                ),
                ("event", models.CharField(help_text="Such as apply_complete.", max_length=20)),
                ("action", models.CharField(help_text="Such as create.", max_length=20)),
                ("address", models.CharField(max_length=1000)),
                ("type", models.CharField(max_length=200)),
                ("id_key", models.CharField(blank=True, max_length=200)),
                ("id_value", models.CharField(blank=True, max_length=1000)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.AddField(
            model_name="environment",
            name="state_backend",
            field=models.JSONField(
                default=provisioning.models.organisation.managed_state,
                help_text='{"type": …}, one of managed, http, local, s3, azurerm, gcs, pg, remote, custom, with its settings and no credentials: where the states of new resources are kept.',
            ),
        ),
        migrations.AddField(
            model_name="stateversion",
            name="compressed",
            field=models.BooleanField(default=False, help_text="Before it was encrypted."),
        ),
        migrations.AlterField(
            model_name="stateversion",
            name="size",
            field=models.PositiveIntegerField(help_text="Bytes before encryption and compression."),
        ),
        migrations.AddField(
            model_name="stateversion",
            name="lineage",
            field=models.CharField(
                blank=True, help_text="Which Terraform state it is a version of.", max_length=100
            ),
        ),
        migrations.AddField(
            model_name="stateversion",
            name="serial",
            field=models.BigIntegerField(
                blank=True,
                help_text="Terraform's count of changes; null for other drivers.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="stateversion",
            name="stored_by",
            field=models.CharField(
                blank=True, help_text="The person who stored it; empty for a step.", max_length=150
            ),
        ),
        migrations.AddField(
            model_name="step",
            name="tool_attempt",
            field=models.PositiveIntegerField(
                default=0,
                help_text="The attempt whose tool may reach its external state; later attempts may follow it.",
            ),
        ),
        migrations.AlterField(
            model_name="stateversion",
            name="step",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="state_versions",
                to="provisioning.step",
            ),
        ),
        migrations.AddConstraint(
            model_name="environment",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "state_backend__type__in",
                        [
                            "managed",
                            "http",
                            "local",
                            "s3",
                            "azurerm",
                            "gcs",
                            "pg",
                            "remote",
                            "custom",
                        ],
                    )
                ),
                name="environment_state_backend_typed",
            ),
        ),
        migrations.AddField(
            model_name="possibleorphan",
            name="resource",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="possible_orphans",
                to="provisioning.resource",
            ),
        ),
        migrations.AddField(
            model_name="possibleorphan",
            name="step",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                to="provisioning.step",
            ),
        ),
        migrations.AddField(
            model_name="statelock",
            name="person",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="statelock",
            name="resource",
            field=models.OneToOneField(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="state_lock",
                to="provisioning.resource",
            ),
        ),
        migrations.AddField(
            model_name="statelock",
            name="step",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                to="provisioning.step",
            ),
        ),
        migrations.AddField(
            model_name="toolevent",
            name="resource",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="tool_events",
                to="provisioning.resource",
            ),
        ),
        migrations.AddField(
            model_name="toolevent",
            name="step",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="tool_events",
                to="provisioning.step",
            ),
        ),
        migrations.AddConstraint(
            model_name="possibleorphan",
            constraint=models.UniqueConstraint(
                fields=("resource", "address", "id_value"), name="possible_orphan_unique"
            ),
        ),
        migrations.AddConstraint(
            model_name="statelock",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("expires_at", None), ("person", None), ("step__isnull", False)),
                    models.Q(
                        ("expires_at__isnull", False), ("person__isnull", False), ("step", None)
                    ),
                    _connector="OR",
                ),
                name="state_lock_one_holder",
            ),
        ),
        migrations.AddIndex(
            model_name="toolevent",
            index=models.Index(fields=["resource"], name="tool_event_resource_idx"),
        ),
        migrations.AddConstraint(
            model_name="toolevent",
            constraint=models.UniqueConstraint(
                fields=("step", "attempt", "sequence"), name="tool_event_sequence_unique"
            ),
        ),
        migrations.RunSQL(FOLLOWS_SQL, FOLLOWS_REVERSE_SQL),
        migrations.RunSQL(MANAGED_SQL, MANAGED_REVERSE_SQL),
    ]
