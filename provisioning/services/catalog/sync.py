"""Brings the catalogue in the database to what a source says: all of it, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from django.contrib.auth.models import User
from django.db import transaction
from semantic_version import Version

from provisioning.models import (
    Organisation,
    ResourceTemplate,
    ResourceTemplateVersion,
    VersionState,
)
from provisioning.score.workload import Problem
from provisioning.services.audit import record
from provisioning.services.catalog.prepare import Prepared, prepare
from provisioning.services.catalog.problems import CatalogError
from provisioning.services.catalog.rematching import guarded
from provisioning.services.catalog.rules import RuleChange, check_rules, write_rules
from provisioning.services.catalog.source import opened
from provisioning.services.people import require_staff


@dataclass(frozen=True, slots=True)
class SyncResult:
    """Tell what a sync did with one template."""

    template: str
    version: str
    digest: str
    status: Literal["created", "unchanged"]
    rules: RuleChange
    source: str


def sync_catalog(
    *, organisation: Organisation, source: str, actor: User, force: bool = False
) -> list[SyncResult]:
    """Register every `template.yaml` under PATH or GIT_URL[@REF]; return one result per template.

    A new version becomes active and can never change; the same version with the same content is
    unchanged. Raise CatalogError with every problem, and change nothing, if any template cannot be
    registered; raise NotAllowedError unless the actor is staff, and RematchError if live
    requirements would match differently, unless it is forced.
    """
    require_staff(actor, "change the catalogue")
    with opened(source) as opened_source:
        prepared = prepare(opened_source)
        label = opened_source.label
    with transaction.atomic():
        # One sync of an organisation at a time: what was checked is what is written.
        Organisation.objects.select_for_update().get(pk=organisation.pk)
        problems = [problem for each in prepared for problem in _problems(organisation, each)]
        ruling = _ruling(organisation, prepared)
        problems += check_rules(organisation, ruling)
        if problems:
            raise CatalogError(problems=problems)
        with guarded(organisation, force=force):
            written = [_write_version(organisation, each, label, actor) for each in prepared]
            _write_descriptions(organisation, ruling)
            changes = write_rules(organisation, ruling)
    return [
        SyncResult(
            template=each.file.name,
            version=each.file.version,
            digest=each.content.digest,
            status="created" if created else "unchanged",
            rules=changes.get(each.file.name, RuleChange()),
            source=label,
        )
        for each, created in zip(prepared, written, strict=True)
    ]


def deprecate_version(*, version: ResourceTemplateVersion, actor: User) -> ResourceTemplateVersion:
    """Let an active version serve no new resources; those that have it keep it.

    Raise CatalogError if it is not active, NotAllowedError unless the actor is staff.
    """
    require_staff(actor, "deprecate a template version")
    with transaction.atomic():
        changed = ResourceTemplateVersion.objects.filter(
            pk=version.pk, state=VersionState.ACTIVE
        ).update(state=VersionState.DEPRECATED)
        version.refresh_from_db(fields=["state"])
        name = f"{version.template.name} {version.version}"
        if not changed:
            raise CatalogError(f"{name} is {version.state}; only an active version is deprecated.")
        record(
            actor=actor,
            action="template_version.deprecated",
            subject_type="template_version",
            subject_id=version.pk,
            subject=name,
            old_status=VersionState.ACTIVE,
            new_status=VersionState.DEPRECATED,
        )
    return version


def newest(versions: Sequence[ResourceTemplateVersion]) -> ResourceTemplateVersion | None:
    """Return the version with the highest semantic version, or None."""
    return max(versions, key=lambda version: Version(version.version), default=None)


def _problems(organisation: Organisation, prepared: Prepared) -> list[Problem]:
    """Compare a template with its row; what a template is for never changes."""
    file = prepared.file
    template = ResourceTemplate.objects.filter(organisation=organisation, name=file.name).first()
    if template is None:
        return []
    kept = {"type": template.type, "class": template.class_name, "driver": template.driver}
    given = {"type": file.type, "class": file.class_, "driver": file.driver}
    problems = [
        file.problem(
            (key,),
            f"The template {file.name} has the {key} {kept[key]}, which cannot become {given[key]}.",
            hint="give the new template another name",
        )
        for key in kept
        if kept[key] != given[key]
    ]
    version = template.versions.filter(version=file.version).defer("archive").first()
    if version is not None and version.digest != prepared.content.digest:
        message = (
            f"{file.name} {file.version} is published with the content {version.digest}, and its "
            f"folder now has {prepared.content.digest}."
        )
        problems.append(file.problem(("version",), message, hint="raise the version"))
    return problems


def _ruling(organisation: Organisation, prepared: Sequence[Prepared]) -> list[Prepared]:
    """Keep the templates whose file is the newest version: an older one does not bring rules back."""
    ruling = []
    for each in prepared:
        versions = ResourceTemplateVersion.objects.filter(
            template__organisation=organisation, template__name=each.file.name
        ).values_list("version", flat=True)
        if all(Version(version) <= each.version for version in versions):
            ruling.append(each)
    return ruling


def _write_descriptions(organisation: Organisation, prepared: Sequence[Prepared]) -> None:
    for file in (each.file for each in prepared):
        if file.description:
            ResourceTemplate.objects.filter(organisation=organisation, name=file.name).update(
                description=file.description
            )


def _write_version(organisation: Organisation, prepared: Prepared, label: str, actor: User) -> bool:
    file = prepared.file
    template, _ = ResourceTemplate.objects.get_or_create(
        organisation=organisation,
        name=file.name,
        defaults={
            "type": file.type,
            "class_name": file.class_,
            "driver": file.driver,
            "description": file.description,
        },
    )
    version, created = template.versions.get_or_create(
        version=file.version,
        defaults={
            "state": VersionState.ACTIVE,
            "source": label,
            "digest": prepared.content.digest,
            "archive": prepared.content.archive,
            "params_schema": prepared.params_schema,
            "outputs": prepared.outputs,
            "config": file.config,
            "uses": list(file.uses),
            "deletion_policy": file.deletion_policy,
            "share_when": file.share_when,
            "merge_rules": file.merge,
            "shrink": file.shrink,
            "grace_seconds": file.grace,
            "timeout_seconds": file.timeout,
            "checks": list(file.checks),
            "requirements": list(file.requirements),
            "co_provision": list(file.co_provision),
            "inputs": file.inputs,
            "share_same": list(file.share_same),
            "naming": file.naming,
        },
    )
    if created:
        record(
            actor=actor,
            action="template_version.active",
            subject_type="template_version",
            subject_id=version.pk,
            subject=f"{file.name} {file.version}",
            new_status=VersionState.ACTIVE,
            reason=f"Synced from {label}.",
        )
    return created
