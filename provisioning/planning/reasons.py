"""Say why something is done with a resource, and what about it changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from provisioning.planning.criteria import json_text
from provisioning.planning.desired import Desired
from provisioning.planning.lifecycle import why_kept
from provisioning.planning.plan import Action, Change, PlannedConsumer
from provisioning.score.workload import Json


def reason_of(
    each: Desired,
    action: Action,
    *,
    consumers: Sequence[PlannedConsumer],
    changes: Sequence[Change],
    after: Sequence[str],
    why_destroyed: str,
    dependencies: Mapping[tuple[str, str], str],
) -> str:
    """Return why an action is planned, as the end of a sentence.

    `consumers` are those the resource will have, `changes` what an update changes, `after` the keys of
    what a recheck comes after; `dependencies` are the kinds of all edges that exist, by their ends.
    """
    present = each.present
    if action is Action.CREATE:
        if each.key.startswith("slot/"):
            return "no resource that can be found by criteria fits"
        if each.key.startswith("pool/"):
            pool = each.key.split("/")[1]
            if not consumers:
                return f"it is kept ready in the pool {pool}"
            return f"the pool {pool} has no member ready"
        return "nothing in the environment has this key yet"
    if action is Action.UPDATE:
        return f"changes {', '.join(change.param for change in changes)}"
    if action is Action.RECHECK:
        return f"may update after {', '.join(after)}"
    if action is Action.DESTROY:
        return why_destroyed
    assert present is not None  # noqa: S101 - all other actions are about existing resources
    if action is Action.RELEASE:
        names = [f"{one.application}/{one.workload}" for one in consumers]
        return why_kept(present, names, dependencies)
    if present.trouble:
        whose = f"owned by {present.owner_team}"
        return f"is failed, {whose}: {present.trouble}; it will be brought about again"
    if present.importing:
        return f"takes in what exists: {', '.join(present.importing)}"
    if not present.clean:
        return "is not finished yet and will be brought about"
    if action is Action.REUSE:
        if present.pool:
            return f"a ready member of the pool {present.pool}"
        made = f"made by application {present.created_by}" if present.created_by else "adopted"
        return f"{made}, and there is no difference"
    return "is as it shall be"


def changes_of(each: Desired) -> tuple[Change, ...]:
    """Return what is different in a resource that exists: params, template version, parts of its context."""
    present = each.present
    assert present is not None  # noqa: S101 - only what exists is updated
    before, after = dict(present.params), dict(each.params)
    changes = [
        Change(param, before.get(param), after.get(param))
        for param in sorted({*before, *after})
        if _differ(before, after, param)
    ]
    if present.version.id != each.version.id:
        changes.append(Change("template version", present.version.version, each.version.version))
    if present.context != each.context:
        changed = [
            part
            for part in sorted({*present.context, *each.context})
            if _differ(present.context, each.context, part)
        ]
        changes += [
            Change(part, present.context.get(part), each.context.get(part)) for part in changed
        ]
    return tuple(changes)


def _differ(before: Mapping[str, Json], after: Mapping[str, Json], name: str) -> bool:
    """Compare as the spec digest does: 1 is not true, and null is not left out."""
    if name in before and name in after:
        return json_text(before[name]) != json_text(after[name])
    return name in before or name in after
