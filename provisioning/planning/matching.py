"""Which template serves a requirement: the most specific rule wins, and every candidate is told why.

Two rules can never tie: equal rules cannot be saved, and two different rules that both match one
requirement differ in which fields they set.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from provisioning.planning.facts import RuleFacts, Snapshot, TemplateFacts, VersionFacts
from provisioning.planning.plan import Candidate

FIELDS = ("resource_id", "application", "environment", "environment_kind", "class_")
"""What makes a rule specific, the strongest first."""
LABELS = {"resource_id": "id", "environment_kind": "environment kind", "class_": "class"}


@dataclass(frozen=True, slots=True)
class Match:
    """The version that serves a requirement, or None, with every rule of its type explained."""

    version: VersionFacts | None
    candidates: tuple[Candidate, ...]


class Matcher:
    """Choose templates for the requirements of one snapshot; equal questions are answered once."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._templates: Mapping[int, TemplateFacts] = snapshot.templates
        self._rules: dict[str, list[RuleFacts]] = defaultdict(list)
        for rule in snapshot.rules:
            self._rules[rule.type].append(rule)
        self._answers: dict[tuple[str, str, str], Match] = {}

    def match(self, type_: str, class_: str, resource_id: str) -> Match:
        """Find the template for a type, a class and a Score id ("" if it has none)."""
        wanted = (type_, class_, resource_id)
        if wanted not in self._answers:
            self._answers[wanted] = self._match(*wanted)
        return self._answers[wanted]

    def suggestion(self, type_: str, class_: str) -> str:
        """Say what could have been meant by a type and a class that no template serves."""
        if type_ in self._rules:
            classes = sorted({rule.class_ or "any class" for rule in self._rules[type_]})
            return f"`{type_}` is served for: {', '.join(classes)}"
        if close := difflib.get_close_matches(type_, sorted(self._rules), n=1):
            return f"did you mean `{close[0]}`?"
        if not self._rules:
            return "the catalogue is empty: fill it with `manage.py catalog sync`"
        return f"the catalogue serves: {', '.join(sorted(self._rules))}"

    def _match(self, type_: str, class_: str, resource_id: str) -> Match:
        facts = {
            "resource_id": resource_id,
            "application": self._snapshot.application,
            "environment": self._snapshot.environment,
            "environment_kind": self._snapshot.environment_kind,
            "class_": class_,
        }
        rules = sorted(self._rules.get(type_, ()), key=_specificity, reverse=True)
        winner: RuleFacts | None = None
        version: VersionFacts | None = None
        candidates: list[Candidate] = []
        for rule in rules:
            template = self._templates[rule.template_id]
            if difference := _difference(rule, facts):
                reason = difference
            elif winner is not None:
                reason = f"the rule for {_describe(winner)} is more specific"
            elif template.newest is None:
                reason = "the template has no active version"
            else:
                winner, version, reason = rule, template.newest, "the most specific that matches"
            candidates.append(Candidate(template.name, _describe(rule), rule is winner, reason))
        return Match(version, tuple(candidates))


def _specificity(rule: RuleFacts) -> tuple[Sequence[bool], Sequence[str]]:
    values = [getattr(rule, field) for field in FIELDS]
    return [bool(value) for value in values], values


def _difference(rule: RuleFacts, facts: Mapping[str, str]) -> str:
    for field in FIELDS:
        wanted = getattr(rule, field)
        if wanted and wanted != facts[field]:
            label = LABELS.get(field, field)
            return f"wants {label} {wanted!r}, here it is {facts[field] or 'none'!r}"
    return ""


def _describe(rule: RuleFacts) -> str:
    conditions = [
        f"{LABELS.get(field, field)} {value}" for field in FIELDS if (value := getattr(rule, field))
    ]
    return ", ".join([f"type {rule.type}", *conditions])
