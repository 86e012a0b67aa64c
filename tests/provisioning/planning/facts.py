"""Facts for the planner's tests: small, complete, and changed where a test says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from provisioning.planning.facts import (
    ConsumerFacts,
    ResourceFacts,
    RuleFacts,
    SlotFacts,
    Snapshot,
    TemplateFacts,
    VersionFacts,
)
from provisioning.planning.plan import Plan
from provisioning.score.document import parse_application
from provisioning.score.workload import Workload


def make_version(
    name: str,
    *,
    version_id: int = 1,
    version: str = "1.0.0",
    params: Mapping[str, Any] | None = None,
    required: Sequence[str] = (),
    outputs: Mapping[str, bool] | None = None,
    **more: Any,
) -> VersionFacts:
    """Make a template version that takes `params` (name to JSON Schema) and gives `outputs`."""
    schema = {
        "type": "object",
        "properties": dict(params or {"size": {"type": "integer"}, "from": {"type": "string"}}),
        "required": list(required),
        "additionalProperties": False,
    }
    return VersionFacts(
        id=version_id,
        template=name,
        version=version,
        digest=f"sha256:{name}{version}",
        driver="fake",
        params_schema=schema,
        outputs=outputs or {"host": False, "password": True},
        **more,
    )


def make_snapshot(
    *versions: VersionFacts, rules: Sequence[RuleFacts] = (), **more: Any
) -> Snapshot:
    """Make the snapshot of application `shop` in `dev` whose catalogue has the given versions."""
    known = versions or (make_version("database"), make_version("queue", version_id=2))
    templates = {each.id: TemplateFacts(each.id, each.template, each) for each in known}
    return Snapshot(
        **{
            "organisation": "acme",
            "application": "shop",
            "team": "one",
            "environment": "dev",
            "environment_kind": "development",
            "templates": templates,
            "rules": rules or [RuleFacts(each.id, each.template) for each in known],
            **more,
        }
    )


def workloads(*texts: str) -> list[Workload]:
    """Read Score texts of which only `name` and `resources` are given, as `name` + YAML."""
    return parse_application([(f"{index}.yaml", text) for index, text in enumerate(texts)])


def score(name: str, resources: str = "", variables: str = "") -> str:
    """Write a Score file whose resources and variables are given as indented YAML lines."""
    text = f"apiVersion: score.dev/v1b1\nmetadata:\n  name: {name}\ncontainers:\n  main:\n    image: busybox\n"
    if variables:
        text += "    variables:\n" + "".join(f"      {line}\n" for line in variables.splitlines())
    if resources:
        text += "resources:\n" + "".join(f"  {line}\n" for line in resources.splitlines())
    return text


def carried_out(plan: Plan, snapshot: Snapshot, *, clean: bool = True) -> Snapshot:
    """Return the environment as it is once a plan has run, or (not clean) has only started."""
    resources = dict(snapshot.resources)
    versions = {
        each.newest.id: each.newest for each in snapshot.templates.values() if each.newest
    } | {each.version.id: each.version for each in snapshot.resources.values()}
    for each in plan.resources:
        if each.action == "destroy":
            del resources[each.key]
            continue
        before = resources.get(each.key)
        resources[each.key] = ResourceFacts(
            id=before.id if before else f"id-of-{each.key}",
            key=each.key,
            name=each.name,
            uid=each.uid,
            type=each.type,
            class_=each.class_,
            version=versions[each.template.version_id],
            params=each.params,
            context=each.context,
            spec_digest=each.spec_digest,
            owner_team=before.owner_team if before else snapshot.team,
            created_by=before.created_by if before else snapshot.application,
            clean=clean,
            deletion_policy=each.deletion_policy,
            floor=each.params if versions[each.template.version_id].shrink != "apply" else {},
            slot=SlotFacts(**asdict(each.slot)) if each.slot else None,
            created_at=before.created_at if before else f"{len(resources):05}",
        )
    gone = {(snapshot.application, name) for name in plan.workloads}
    consumers = [
        each for each in snapshot.consumers if (each.application, each.workload) not in gone
    ]
    consumers += [
        ConsumerFacts(
            snapshot.application,
            each.workload,
            each.alias,
            each.key,
            each.mode,
            each.params,
            each.depends_on,
            matching=each.matching,
            priority=each.priority,
        )
        for each in plan.bindings
    ]
    dependencies = {
        edge: kind
        for edge, kind in snapshot.dependencies.items()
        if edge[0] in resources and edge[0] not in {each.key for each in plan.resources}
    }
    for each in plan.resources:
        if each.action != "destroy":
            dependencies |= {(each.key, target): kind for target, kind in each.depends_on.items()}
    return replace(snapshot, resources=resources, consumers=consumers, dependencies=dependencies)


def actions(plan: Plan) -> dict[str, str]:
    """Map each key of a plan to its action."""
    return {each.key: str(each.action) for each in plan.resources}
