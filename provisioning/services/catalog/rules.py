"""Template rules as the files say them: found by name, compared, written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from provisioning.models import (
    Application,
    Environment,
    Organisation,
    ResourceTemplate,
    TemplateRule,
)
from provisioning.score.workload import Problem
from provisioning.services.catalog.prepare import Prepared
from provisioning.services.catalog.problems import likely
from provisioning.services.catalog.template_file import Rule


@dataclass(frozen=True, slots=True)
class RuleChange:
    """Count the rules of a template that a sync added and removed."""

    added: int = 0
    removed: int = 0


def check_rules(organisation: Organisation, prepared: Sequence[Prepared]) -> list[Problem]:
    """Find rules that name what is not there, or that equal a rule of a template of elsewhere."""
    environments = set(organisation.environments.values_list("name", flat=True))
    applications = set(organisation.applications.values_list("name", flat=True))
    synced = [each.file.name for each in prepared]
    others = {
        _plain(rule): rule.template.name
        for rule in _rules(organisation).exclude(template__name__in=synced)
    }
    problems: list[Problem] = []
    for file in (each.file for each in prepared):
        for index, rule in enumerate(file.rules):
            path: tuple[str | int, ...] = (
                ("rules", index) if "rules" in file.document.value else ("type",)
            )
            for noun, name, known in (
                ("environment", rule.environment, environments),
                ("application", rule.application, applications),
            ):
                if name and name not in known:
                    message = f"There is no {noun} {name} in {organisation.name}."
                    hint = likely(name, known, otherwise="create it before the rule names it")
                    problems.append(file.problem((*path, noun), message, hint=hint))
            if rule in others:
                message = f"The template {others[rule]} has the same rule already ({rule})."
                problems.append(file.problem(path, message, hint="make this rule more specific"))
    return problems


def write_rules(organisation: Organisation, prepared: Sequence[Prepared]) -> dict[str, RuleChange]:
    """Make the templates' rules be those of their files; return what changed by template."""
    templates = {
        template.name: template
        for template in ResourceTemplate.objects.filter(
            organisation=organisation, name__in=[each.file.name for each in prepared]
        )
    }
    kept: dict[str, set[Rule]] = {name: set() for name in templates}
    removed: dict[str, list[int]] = {name: [] for name in templates}
    wanted = {each.file.name: each.file.rules for each in prepared}
    for row in _rules(organisation).filter(template__in=templates.values()):
        rule, name = _plain(row), row.template.name
        if rule in wanted[name]:
            kept[name].add(rule)
        else:
            removed[name].append(row.pk)
    # All removals first: a rule may move from one template of the source to another.
    TemplateRule.objects.filter(pk__in=[pk for pks in removed.values() for pk in pks]).delete()
    added = {name: [rule for rule in wanted[name] if rule not in kept[name]] for name in templates}
    _create(organisation, ((templates[name], rule) for name in templates for rule in added[name]))
    return {name: RuleChange(len(added[name]), len(removed[name])) for name in templates}


def _create(organisation: Organisation, rules: Iterable[tuple[ResourceTemplate, Rule]]) -> None:
    environments = {row.name: row for row in Environment.objects.filter(organisation=organisation)}
    applications = {row.name: row for row in Application.objects.filter(organisation=organisation)}
    TemplateRule.objects.bulk_create(
        TemplateRule(
            organisation=organisation,
            template=template,
            type=rule.type,
            class_name=rule.class_,
            resource_id=rule.id,
            environment_kind=rule.environment_kind,
            environment=environments.get(rule.environment),
            application=applications.get(rule.application),
        )
        for template, rule in rules
    )


def _rules(organisation: Organisation) -> Any:
    return TemplateRule.objects.filter(organisation=organisation).select_related(
        "template", "environment", "application"
    )


def _plain(row: TemplateRule) -> Rule:
    return Rule(
        type=row.type,
        class_=row.class_name,
        id=row.resource_id,
        environment_kind=row.environment_kind,
        environment=row.environment.name if row.environment else "",
        application=row.application.name if row.application else "",
    )
