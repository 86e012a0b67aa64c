"""Put a plan together: who is bound and released, what is done with each resource, in which steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from provisioning.graph.build import order
from provisioning.planning.desired import Desired, as_it_is
from provisioning.planning.facts import ConsumerFacts, ResourceFacts, Snapshot
from provisioning.planning.lifecycle import (
    deletion_policy,
    destroyed_after,
    edges_after,
)
from provisioning.planning.plan import (
    Action,
    Plan,
    PlannedBinding,
    PlannedConsumer,
    PlannedRelease,
    PlannedResource,
    PlannedTemplate,
)
from provisioning.planning.questions import questions_of
from provisioning.planning.reasons import changes_of, reason_of
from provisioning.planning.requirements import Requirement
from provisioning.planning.slots import Found, slot_after
from provisioning.planning.steps import dependency_closure, output_dependents, planned_steps
from provisioning.planning.users import NO_CHANGE, UserChange, new_takers, user_changes


@dataclass(frozen=True, slots=True)
class Assembly:
    """Put one plan together from what was settled.

    `names` are the workloads it covers, `requirements` what they declare, `staying` the active
    consumers of all other workloads, `desired` the settled resources by key. The `condemned` are
    destroyed whatever holds them, `why_condemned`; the `left` are released and stay as they are; the
    `looked_at` get a step whatever changes.
    """

    kind: str
    names: Sequence[str]
    requirements: Sequence[Requirement]
    staying: Sequence[ConsumerFacts]
    desired: Mapping[str, Desired]
    snapshot: Snapshot
    condemned: frozenset[str] = frozenset()
    why_condemned: str = "as requested"
    left: Mapping[str, Desired] = field(default_factory=dict)
    looked_at: frozenset[str] = frozenset()

    def plan(self) -> Plan:
        """Return the plan."""
        snapshot, desired = self.snapshot, self.desired
        bindings = self._bindings()
        releases = self._releases(bindings)
        consumers = self._consumers()
        edges = edges_after(desired, snapshot)
        destroyed = self._destroyed(releases, consumers, edges)
        edges = {edge: kind for edge, kind in edges.items() if edge[0] not in destroyed}
        users = user_changes(desired, destroyed, consumers, edges, snapshot)
        actions = self._actions(edges, releases, destroyed, users)
        ensured = self._ensured(actions, edges, users)
        resources = self._resources(actions, consumers, edges, users)
        plan = Plan(
            kind=self.kind,
            application=snapshot.application,
            environment=snapshot.environment,
            workloads=tuple(self.names),
            resources=resources,
            bindings=tuple(bindings),
            releases=tuple(releases),
            steps=planned_steps(ensured, destroyed, edges, snapshot, users),
            touched=self._touched(actions, edges),
        )
        return replace(plan, questions=questions_of(plan, snapshot))

    def _bindings(self) -> list[PlannedBinding]:
        return [
            PlannedBinding(
                workload=each.workload.name,
                alias=each.declaration.alias,
                key=each.key,
                mode=each.mode,
                params=each.params,
                depends_on=tuple(
                    sorted(target for target, kind in each.depends_on.items() if kind != "output")
                ),
                priority=each.declaration.priority,
                origin=each.origin,
                **(each.found.explanation() if each.found else {}),
            )
            for each in sorted(
                self.requirements, key=lambda each: (each.workload.name, each.declaration.alias)
            )
        ]

    def _releases(self, bindings: Sequence[PlannedBinding]) -> list[PlannedRelease]:
        bound = {(each.workload, each.alias): each.key for each in bindings}
        covered = set(self.names)
        return sorted(
            (
                PlannedRelease(consumer.workload, consumer.alias, consumer.key)
                for consumer in self.snapshot.consumers
                if consumer.application == self.snapshot.application
                and consumer.workload in covered
                and bound.get((consumer.workload, consumer.alias)) != consumer.key
            ),
            key=lambda each: (each.workload, each.alias),
        )

    def _consumers(self) -> dict[str, list[PlannedConsumer]]:
        after: dict[str, list[PlannedConsumer]] = defaultdict(list)
        for each in self.staying:
            after[each.key].append(
                PlannedConsumer(each.application, each.workload, each.alias, each.mode, each.team)
            )
        for requirement in self.requirements:
            after[requirement.key].append(
                PlannedConsumer(
                    self.snapshot.application,
                    requirement.workload.name,
                    requirement.declaration.alias,
                    requirement.mode,
                    self.snapshot.team,
                )
            )
        for listed in after.values():
            listed.sort(key=lambda each: (each.application, each.workload, each.alias))
        return after

    def _destroyed(
        self,
        releases: Sequence[PlannedRelease],
        consumers: Mapping[str, Sequence[PlannedConsumer]],
        edges: Mapping[tuple[str, str], str],
    ) -> set[str]:
        """Everything this plan lets go of, and what an earlier one of this application left over."""
        candidates = {each.key for each in releases}
        candidates |= {
            target for source, target in self.snapshot.dependencies if source in self.desired
        }
        candidates |= {
            key for key, each in self.snapshot.resources.items() if is_own(each, self.snapshot)
        }
        return destroyed_after(
            candidates, consumers, edges, self.snapshot, self.desired, self.condemned
        )

    def _actions(
        self,
        edges: Mapping[tuple[str, str], str],
        releases: Sequence[PlannedRelease],
        destroyed: Iterable[str],
        users: Mapping[str, UserChange],
    ) -> dict[str, Action]:
        used_before = {
            each.key
            for each in self.snapshot.consumers
            if each.application == self.snapshot.application
        }
        actions = {}
        for key, each in self.desired.items():
            if each.present is None:
                actions[key] = Action.CREATE
            elif each.spec_digest != each.present.spec_digest:
                actions[key] = Action.UPDATE
            else:
                actions[key] = Action.UNCHANGED if key in used_before else Action.REUSE
        updated = {key for key, action in actions.items() if action is Action.UPDATE}
        given = new_takers(users, edges, self.snapshot)
        for key in given | output_dependents(updated | given, edges):
            if actions.get(key) not in (Action.CREATE, Action.UPDATE):
                actions[key] = Action.RECHECK
        for release in releases:
            actions.setdefault(release.key, Action.RELEASE)
        for key in users:
            actions.setdefault(key, Action.UNCHANGED)
        return actions | dict.fromkeys(destroyed, Action.DESTROY)

    def _ensured(
        self,
        actions: Mapping[str, Action],
        edges: Mapping[tuple[str, str], str],
        users: Mapping[str, UserChange],
    ) -> set[str]:
        """Everything whose input changes, and in the closure of what is used what is not clean."""
        changing = (Action.CREATE, Action.UPDATE, Action.RECHECK)
        ensured = {key for key, action in actions.items() if action in changing}
        ensured |= users.keys()
        used = dependency_closure((each.key for each in self.requirements), edges)
        unclean = {
            key
            for key in used - ensured
            if (resource := self.snapshot.resources.get(key)) and not resource.clean
        }
        takers = output_dependents(unclean, edges) & used
        return ensured | unclean | takers | self.looked_at

    def _touched(
        self, actions: Mapping[str, Action], edges: Mapping[tuple[str, str], str]
    ) -> frozenset[str]:
        changing = (Action.CREATE, Action.UPDATE, Action.RECHECK, Action.DESTROY)
        touched = {key for key, action in actions.items() if action in changing}
        before, after = set(self.snapshot.dependencies.items()), set(edges.items())
        return frozenset(touched | {source for (source, _), _ in before ^ after})

    def _resources(
        self,
        actions: Mapping[str, Action],
        consumers: Mapping[str, Sequence[PlannedConsumer]],
        edges: Mapping[tuple[str, str], str],
        users: Mapping[str, UserChange],
    ) -> tuple[PlannedResource, ...]:
        needs: dict[str, dict[str, str]] = defaultdict(dict)
        before = self.snapshot.dependencies.items()
        gone = {edge: kind for edge, kind in before if edge[0] not in self.desired}
        for (source, target), kind in {**gone, **edges}.items():
            needs[source][target] = kind
        found: dict[str, list[Found]] = defaultdict(list)
        for each in self.requirements:
            if each.found is not None:
                found[each.key].append(each.found)
        inside = ((key, target) for key in actions for target in needs[key] if target in actions)
        return tuple(
            self._resource(
                key,
                actions,
                consumers.get(key, ()),
                {t: needs[key][t] for t in sorted(needs[key])},
                found[key],
                users,
            )
            for key in order(actions, inside)
        )

    def _resource(
        self,
        key: str,
        actions: Mapping[str, Action],
        consumers: Sequence[PlannedConsumer],
        depends_on: Mapping[str, str],
        found: Sequence[Found],
        users: Mapping[str, UserChange],
    ) -> PlannedResource:
        each = self.desired.get(key) or self.left.get(key)
        each = each or as_it_is(self.snapshot.resources[key], depends_on)
        present = each.present
        action = actions[key]
        changes = changes_of(each) if action is Action.UPDATE else ()
        reason = reason_of(
            each,
            action,
            consumers=consumers,
            changes=changes,
            after=self._updated(each, actions, users) if action is Action.RECHECK else (),
            why_destroyed=self.why_condemned
            if key in self.condemned
            else "nothing uses it any more",
            dependencies=self.snapshot.dependencies,
        )
        return PlannedResource(
            key=key,
            uid=each.uid,
            name=each.name,
            type=each.type,
            class_=each.class_,
            action=action,
            reason=reason,
            template=PlannedTemplate(
                each.version.id,
                each.version.template,
                each.version.version,
                each.version.digest,
                each.version.driver,
            ),
            params=each.params,
            context=each.context,
            spec_digest=each.spec_digest,
            resource_id=present.id if present else "",
            deletion_policy=deletion_policy(each.present, each.version),
            depends_on=each.depends_on,
            consumers=tuple(consumers),
            changes=changes,
            candidates=each.candidates,
            slot=slot_after(present, found),
            decided_by=each.decided_by,
            unmet=each.unmet,
            shrinks=each.shrinks,
            joining=users.get(key, NO_CHANGE).joining,
            leaving=users.get(key, NO_CHANGE).leaving,
        )

    def _updated(
        self, each: Desired, actions: Mapping[str, Action], users: Mapping[str, UserChange]
    ) -> list[str]:
        """Return the keys after which a resource may have to be updated."""
        return sorted(
            key
            for key in each.depends_on
            if actions.get(key) in _MAY_CHANGE or each.key in users.get(key, NO_CHANGE).joining
        )


_MAY_CHANGE = (Action.UPDATE, Action.RECHECK)


def is_own(present: ResourceFacts, snapshot: Snapshot) -> bool:
    """Tell whether the application that is deployed made this live resource."""
    mine = bool(snapshot.application) and present.created_by == snapshot.application
    return mine and not present.deleting
