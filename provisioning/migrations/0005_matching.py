"""Let resources be found by criteria: match slots, how many may use one, and under which rule."""

from __future__ import annotations

from django.db import migrations, models
from django.db.models import Q

MODES = ["private", "application", "shared", "existing", "match"]
LIVE_STATES = ["provisioning", "active", "updating", "deleting", "failed"]

VERSION_SQL = """
CREATE TRIGGER template_version_share_when_immutable
    BEFORE UPDATE ON provisioning_resourcetemplateversion
    FOR EACH ROW WHEN (OLD.state <> 'draft' AND NEW.share_when <> OLD.share_when)
    EXECUTE FUNCTION conductor_refuse_version_change();
"""
VERSION_REVERSE_SQL = """
DROP TRIGGER template_version_share_when_immutable ON provisioning_resourcetemplateversion;
"""
CONSUMERS_SQL = """
CREATE FUNCTION conductor_refuse_consumer_too_many() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    most integer;
BEGIN
    SELECT max_consumers INTO most FROM provisioning_resource
        WHERE id = NEW.resource_id FOR NO KEY UPDATE;
    IF most IS NOT NULL AND most <= (
        SELECT count(*) FROM provisioning_resourceconsumer
        WHERE resource_id = NEW.resource_id AND state = 'active' AND id <> NEW.id
    ) THEN
        RAISE EXCEPTION 'resource % has % consumers already, which is all it may have',
            NEW.resource_id, most USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER consumer_not_too_many
    BEFORE INSERT OR UPDATE OF state, resource_id ON provisioning_resourceconsumer
    FOR EACH ROW WHEN (NEW.state = 'active')
    EXECUTE FUNCTION conductor_refuse_consumer_too_many();
"""
CONSUMERS_REVERSE_SQL = """
DROP TRIGGER consumer_not_too_many ON provisioning_resourceconsumer;
DROP FUNCTION conductor_refuse_consumer_too_many();
"""


class Migration(migrations.Migration):
    dependencies = [("provisioning", "0004_approvals")]

    operations = [
        migrations.AddField(
            model_name="resource",
            name="match_slot",
            field=models.CharField(
                blank=True,
                default="",
                help_text="What one must ask for to find it by criteria; empty if nobody can.",
                max_length=64,
            ),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="resource",
            name="slot_ordinal",
            field=models.PositiveIntegerField(
                blank=True, help_text="The how many-eth resource of its slot it is.", null=True
            ),
        ),
        migrations.AddField(
            model_name="resource",
            name="max_consumers",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="The least that any of its consumers has asked for.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="resource",
            name="share_conditionally",
            field=models.BooleanField(
                default=False,
                help_text="Only those share it for whom its template's rule holds.",
            ),
        ),
        migrations.AddField(
            model_name="resourceconsumer",
            name="matching",
            field=models.JSONField(
                blank=True,
                help_text="The criteria by which it found the resource, if it did.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="resourcetemplateversion",
            name="share_when",
            field=models.TextField(
                blank=True,
                default="",
                help_text="The rule by which a resource of it is shared conditionally.",
            ),
            preserve_default=False,
        ),
        migrations.AlterField(
            model_name="resourceconsumer",
            name="mode",
            field=models.CharField(
                choices=[(mode, mode.capitalize()) for mode in MODES], max_length=15
            ),
        ),
        migrations.RemoveConstraint("resourceconsumer", "consumer_mode_valid"),
        migrations.AddConstraint(
            model_name="resourceconsumer",
            constraint=models.CheckConstraint(
                condition=Q(mode__in=MODES), name="consumer_mode_valid"
            ),
        ),
        migrations.AddConstraint(
            model_name="resource",
            constraint=models.UniqueConstraint(
                condition=Q(state__in=LIVE_STATES) & ~Q(match_slot=""),
                fields=["match_slot", "slot_ordinal"],
                name="resource_one_live_per_slot",
            ),
        ),
        migrations.AddConstraint(
            model_name="resource",
            constraint=models.CheckConstraint(
                condition=Q(match_slot="", slot_ordinal=None)
                | (~Q(match_slot="") & Q(slot_ordinal__isnull=False)),
                name="resource_slot_whole",
            ),
        ),
        migrations.AddConstraint(
            model_name="resource",
            constraint=models.CheckConstraint(
                condition=Q(max_consumers=None) | Q(max_consumers__gte=1),
                name="resource_max_consumers_positive",
            ),
        ),
        migrations.RunSQL(VERSION_SQL, VERSION_REVERSE_SQL),
        migrations.RunSQL(CONSUMERS_SQL, CONSUMERS_REVERSE_SQL),
    ]
