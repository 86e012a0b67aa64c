"""The plan as text for a terminal."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from provisioning.planning.addresses import environment_of

Paint = Callable[[str, str], str]
PlanJson = Mapping[str, Any]

SYMBOLS = {
    "create": "+",
    "reuse": "=",
    "update": "~",
    "recheck": "!",
    "unchanged": " ",
    "release": "<",
    "destroy": "-",
}
SUMMARY = {
    "create": "to create",
    "reuse": "to reuse",
    "update": "to update",
    "recheck": "to recheck",
    "release": "to release",
    "destroy": "to destroy",
    "unchanged": "unchanged",
}
INDENT = " " * 6
MOST_NAMED = 5
SHRINKS = {
    "applied": "shrinks, nobody asks for more",
    "propose": "could shrink with --shrink, nobody asks for more",
    "never": "stays, its template lets nothing shrink",
}


def plain(text: str, _: str) -> str:
    """Paint nothing."""
    return text


def plan_lines(plan: PlanJson, *, explain: bool = False, paint: Paint = plain) -> Iterator[str]:
    """Write a plan's JSON as lines, grouped by action; `explain` adds every candidate considered."""
    verb = "Tear down" if plan["kind"] == "teardown" else "Deploy"
    workloads = ", ".join(plan["workloads"]) or "no workload"
    if plan["kind"] == "maintenance":
        yield f"Maintain {plan['environment']}"
    else:
        yield f"{verb} {plan['application']} ({workloads}) in {plan['environment']}"
    yield ""
    for action in SYMBOLS:
        for resource in plan["resources"]:
            if resource["action"] == action:
                yield from _resource_lines(plan, resource, explain, paint)
    if not plan["resources"]:
        yield "  No resources are concerned."
    yield ""
    for team, workloads in plan["blast_radius"].items():
        for workload, uids in workloads.items():
            touched = f"Changes what {workload} of the team {team} uses: {', '.join(uids)}."
            yield paint(touched, "update")
    for question in plan.get("questions", ()):
        yield paint(f"Asks the owners of {question['team']}: {question['text']}", "update")
    yield summary(plan)


def summary(plan: PlanJson) -> str:
    """Count a plan's actions in one line."""
    counts = Counter(resource["action"] for resource in plan["resources"])
    parts = [f"{counts[action]} {words}" for action, words in SUMMARY.items() if counts[action]]
    if not plan["steps"] and not plan["releases"]:
        parts.insert(0, "nothing to do")
    return f"Plan: {', '.join(parts) or 'nothing to do'}."


def _resource_lines(
    plan: PlanJson, resource: Mapping[str, Any], explain: bool, paint: Paint
) -> Iterator[str]:
    action = resource["action"]
    template = resource["template"]
    yield (
        f"  {paint(f'{SYMBOLS[action]} {action:<9}', action)} {resource['uid']} "
        f"({template['name']}@{template['version']}){_where(resource['key'])}"
    )
    if resource["reason"]:
        yield f"{INDENT}{resource['reason']}"
    for change in resource["changes"]:
        yield f"{INDENT}{change['param']}: {_value(change['before'])} → {_value(change['after'])}"
    yield from _merge_lines(resource)
    if joining := resource.get("joining"):
        yield f"{INDENT}makes credentials of their own for {', '.join(joining)}"
    if leaving := resource.get("leaving"):
        yield f"{INDENT}takes back the credentials of {', '.join(leaving)}"
    own = [
        f"{binding['workload']}.{binding['alias']}"
        for binding in plan["bindings"]
        if binding["key"] == resource["key"]
    ]
    if own:
        yield f"{INDENT}for {', '.join(own)}"
    others = other_users(plan, resource)
    if others and action != "release":
        yield f"{INDENT}also used by {', '.join(others)}"
    if explain:
        yield from _explanation(resource["candidates"])
        for binding in plan["bindings"]:
            if binding["key"] == resource["key"] and binding.get("matching"):
                yield from _considered_lines(binding)


def _merge_lines(resource: Mapping[str, Any]) -> Iterator[str]:
    """Tell who decided what several asked for, what shrinks or could, and whose wish is not met."""
    decided = resource.get("decided_by", {})
    if len({name for names in decided.values() for name in names}) > 1:
        for param, names in decided.items():
            more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
            yield f"{INDENT}{param} decided by {', '.join(names[:MOST_NAMED])}{more}"
    for shrink in resource.get("shrinks", ()):
        yield (
            f"{INDENT}{shrink['param']} {SHRINKS[shrink['verdict']]}: "
            f"{_value(shrink['before'])} → {_value(shrink['after'])}"
        )
    for wish in resource.get("unmet", ()):
        yield (
            f"{INDENT}not as {wish['consumer']} asks: {wish['param']} is "
            f"{_value(wish['given'])}, not {_value(wish['asked'])}"
        )


def other_users(plan: PlanJson, resource: Mapping[str, Any]) -> list[str]:
    """Name the other applications' workloads that consume a resource of the plan."""
    return sorted(
        {
            f"{consumer['application']}/{consumer['workload']}"
            for consumer in resource["consumers"]
            if consumer["application"] != plan["application"]
        }
    )


def _explanation(candidates: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for candidate in candidates:
        mark, verdict = ("✓", "chosen") if candidate["chosen"] else ("✗", "lost")
        yield (
            f"{INDENT}{mark} {candidate['template']} by rule {candidate['rule']} "
            f"{verdict}: {candidate['reason']}"
        )


def _considered_lines(binding: Mapping[str, Any]) -> Iterator[str]:
    """Tell which live resources were considered for an alias that is matched by criteria."""
    if not binding["considered"]:
        yield f"{INDENT}{binding['workload']}.{binding['alias']}: there is no resource to match"
    for each in binding["considered"]:
        mark, verdict = ("✓", "taken") if each["chosen"] else ("✗", "not taken")
        yield (
            f"{INDENT}{mark} {each['name']} of the team {each['owner_team']}{_where(each['key'])} for "
            f"{binding['workload']}.{binding['alias']} {verdict}: {each['reason']}"
        )
    if left_out := binding["left_out"]:
        counts = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        yield f"{INDENT}✗ {sum(left_out.values())} more not taken: {counts}"


def _where(address: str) -> str:
    path = environment_of(address)
    return f" in {path}" if path else ""


def _value(value: Any) -> str:
    return "unset" if value is None else json.dumps(value, ensure_ascii=False)
