"""Let the database itself guard what must never change."""

from __future__ import annotations

from django.db import migrations

AUDIT_SQL = """
CREATE FUNCTION conductor_refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit events cannot be changed or deleted' USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER audit_event_append_only BEFORE UPDATE OR DELETE ON provisioning_auditevent
    FOR EACH ROW EXECUTE FUNCTION conductor_refuse_audit_change();
"""
AUDIT_REVERSE_SQL = """
DROP TRIGGER audit_event_append_only ON provisioning_auditevent;
DROP FUNCTION conductor_refuse_audit_change();
"""
VERSION_SQL = """
CREATE FUNCTION conductor_refuse_version_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'version % of a template is %: its content cannot change any more',
        OLD.version, OLD.state USING ERRCODE = 'check_violation';
END $$;
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
VERSION_REVERSE_SQL = """
DROP TRIGGER template_version_immutable ON provisioning_resourcetemplateversion;
DROP FUNCTION conductor_refuse_version_change();
"""


class Migration(migrations.Migration):
    dependencies = [("provisioning", "0001_initial")]

    operations = [
        migrations.RunSQL(AUDIT_SQL, AUDIT_REVERSE_SQL),
        migrations.RunSQL(VERSION_SQL, VERSION_REVERSE_SQL),
    ]
