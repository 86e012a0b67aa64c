"""Read the templates of an organisation and the rules that choose among them."""

from __future__ import annotations

from semantic_version import Version

from provisioning.models import (
    ResourceTemplate,
    ResourceTemplateVersion,
    TemplateRule,
    VersionState,
)
from provisioning.planning.facts import RuleFacts, TemplateFacts, VersionFacts


def read_templates(organisation_id: int) -> dict[int, TemplateFacts]:
    """Read an organisation's templates, each with its newest active version."""
    newest: dict[int, VersionFacts] = {}
    active = (
        ResourceTemplateVersion.objects.filter(
            template__organisation=organisation_id, state=VersionState.ACTIVE
        )
        .select_related("template")
        .defer("archive")
    )
    for version in sorted(active, key=lambda each: Version(each.version)):
        newest[version.template_id] = version_facts(version)
    return {
        template.pk: TemplateFacts(template.pk, template.name, newest.get(template.pk))
        for template in ResourceTemplate.objects.filter(organisation=organisation_id)
    }


def version_facts(version: ResourceTemplateVersion) -> VersionFacts:
    """Return what deciding needs of a template version, its content left aside."""
    return VersionFacts(
        id=version.pk,
        template=version.template.name,
        version=version.version,
        digest=version.digest,
        driver=version.template.driver,
        params_schema=version.params_schema,
        outputs={output["name"]: bool(output.get("sensitive")) for output in version.outputs},
        uses=tuple(version.uses),
        deletion_policy=version.deletion_policy,
        share_when=version.share_when,
        merge_rules=version.merge_rules,
        shrink=version.shrink,
        grace=version.grace_seconds,
        checks=version.checks,
        requirements=version.requirements,
        co_provision=version.co_provision,
        inputs=version.inputs,
        share_same=tuple(version.share_same),
        naming=version.naming,
    )


def read_rules(organisation_id: int) -> list[RuleFacts]:
    """Read an organisation's template rules."""
    rules = TemplateRule.objects.filter(organisation=organisation_id).select_related(
        "environment", "application"
    )
    return [
        RuleFacts(
            template_id=rule.template_id,
            type=rule.type,
            class_=rule.class_name,
            resource_id=rule.resource_id,
            environment_kind=rule.environment_kind,
            environment=rule.environment.name if rule.environment else "",
            application=rule.application.name if rule.application else "",
        )
        for rule in rules.order_by("pk")
    ]
