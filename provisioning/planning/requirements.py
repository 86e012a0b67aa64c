"""What the workloads of a deployment ask for, every alias bound to the key of its resource."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from provisioning.graph.build import CycleError, order
from provisioning.planning.addresses import environment_of
from provisioning.planning.claims import claimed_keys
from provisioning.planning.facts import PoolFacts, Snapshot
from provisioning.planning.naming import resource_key
from provisioning.planning.references import bind, bound_text, literal_text
from provisioning.planning.slots import Found, NothingFitsError, Slots, slot_after
from provisioning.score.placeholders import (
    PlaceholderError,
    as_text,
    look_up,
    parse_reference,
    references,
)
from provisioning.score.workload import (
    Binding,
    Json,
    Problem,
    ResourceDeclaration,
    Workload,
    join_path,
)


@dataclass(frozen=True, slots=True)
class Requirement:
    """One declared resource of a workload, bound.

    `params` is None if the declaration names none: it then agrees with what others ask for.
    `depends_on` maps the keys that the declaration needs to the kind of dependency, `uses` lists
    the (alias, output and below) that its params refer to, `found` tells how one that is matched by
    criteria came to its key, `pool` is the one of which it claims a member. One that the file does
    not declare has an alias path like `users/db`; its `origin` is then `required`, `co-provisioned`
    or `followed` (co-provisioned, and what depends on that which brought it depends on it too).
    `needs` maps what the template requires to the keys.
    """

    workload: Workload
    declaration: ResourceDeclaration
    key: str
    params: Mapping[str, Json] | None
    depends_on: Mapping[str, str] = field(default_factory=dict)
    uses: Sequence[tuple[str, tuple[str, ...]]] = ()
    found: Found | None = None
    pool: PoolFacts | None = None
    origin: str = "declared"
    needs: Mapping[str, str] = field(default_factory=dict)

    @property
    def mode(self) -> str:
        """Return how the declaration names its resource."""
        return "pool" if self.pool else self.declaration.binding.mode

    @property
    def path(self) -> str:
        """Return the place in its file of the declaration, or of the one that brought it."""
        return join_path(("resources", self.declaration.alias.partition("/")[0]))

    def problem(self, message: str, *, below: str = "", hint: str = "") -> Problem:
        """Place a problem at the declaration, or at something below it."""
        path = f"{self.path}.{below}" if below else self.path
        if self.origin != "declared":
            message = f"For `{self.declaration.alias}`: {message}"
        return self.workload.problem(path, message, hint=hint)


def requirements_of(
    workloads: Sequence[Workload], snapshot: Snapshot, problems: list[Problem]
) -> list[Requirement]:
    """Bind every declared resource; what cannot be bound is left out and told in `problems`."""
    keys_by_id = {
        resource.id: resource.key
        for resource in snapshot.resources.values()
        if not environment_of(resource.key)
    }
    requirements = []
    slots = Slots(workloads, snapshot)
    claimed = claimed_keys(workloads, snapshot, problems)
    for workload in sorted(workloads, key=lambda workload: workload.name):
        keys = _keys(workload, snapshot, keys_by_id, claimed, problems)
        for name, container in workload.containers.items():
            problems.extend(_metadata_problems(workload, _substituted_parts(name, container)))
        bound: dict[str, Requirement] = {}
        for alias in _order(workload, keys, problems):
            try:
                bound[alias] = _bind(workload, alias, keys)
            except PlaceholderError:
                path = join_path(("resources", alias, "params"))
                params = [(path, workload.resources[alias].params)]
                problems.extend(_metadata_problems(workload, params, aliases=workload.resources))
                continue
            if pool := workload.resources[alias].binding.pool:
                bound[alias] = replace(bound[alias], pool=snapshot.pools[pool])
            elif workload.resources[alias].binding.mode == "match":
                try:
                    found = slots.bind(workload, workload.resources[alias], bound[alias].params)
                except NothingFitsError as error:
                    problems.append(bound.pop(alias).problem(str(error), hint=error.hint))
                    del keys[alias]
                    continue
                keys[alias] = found.key
                bound[alias] = replace(bound[alias], key=found.key, found=found)
        requirements += [bound[alias] for alias in sorted(bound)]
    problems += _crowding(requirements, workloads, snapshot)
    return requirements


def _crowding(
    requirements: Sequence[Requirement], workloads: Sequence[Workload], snapshot: Snapshot
) -> Iterator[Problem]:
    """Refuse to bind by id to a resource that has as many consumers as it may."""
    by_id = [each for each in requirements if each.declaration.binding.mode == "existing"]
    covered = {workload.name for workload in workloads}
    for each in by_id:
        together = [other.found for other in requirements if other.key == each.key]
        slot = slot_after(snapshot.resources[each.key], together)
        if slot is None or slot.max_consumers is None:
            continue
        staying = sum(
            consumer.key == each.key
            and (consumer.application != snapshot.application or consumer.workload not in covered)
            for consumer in snapshot.consumers
        )
        if staying + len(together) > slot.max_consumers:
            yield each.problem(
                f"{each.key} may have {slot.max_consumers} consumers, and has {staying} besides.",
                below="reference",
                hint="ask by the same criteria to get the next of its slot",
            )


def _order(workload: Workload, keys: Mapping[str, str], problems: list[Problem]) -> list[str]:
    """Order the aliases so that one matched by criteria comes after what its params refer to."""
    matched = {alias for alias in keys if workload.resources[alias].binding.mode == "match"}
    if not matched:
        return sorted(keys)
    edges = {
        (alias, reference.alias)
        for alias in keys
        for _, reference in references(
            workload.resources[alias].params, aliases=frozenset(workload.resources)
        )
        if reference.alias in keys
    }
    edges |= {
        (alias, other)
        for alias in keys
        for other in workload.resources[alias].depends_on
        if other in keys
    }
    try:
        return order(keys, edges)
    except CycleError as error:
        problems.append(workload.problem(join_path(("resources", error.path[0])), str(error)))
        return []


def _metadata_problems(
    workload: Workload, parts: Iterable[tuple[str, Json]], aliases: Collection[str] = ()
) -> Iterator[Problem]:
    """Find references to metadata that the workload does not have, in (path, value) pairs."""
    for path, value in parts:
        for below, reference in references(value, aliases=aliases):
            if reference.alias:
                continue
            try:
                look_up(workload.metadata, reference.keys, reference)
            except PlaceholderError as error:
                place = f"{path}.{below}" if below else path
                yield workload.problem(place, str(error), hint=error.hint)


def _keys(
    workload: Workload,
    snapshot: Snapshot,
    keys_by_id: Mapping[str, str],
    claimed: Mapping[tuple[str, str], str],
    problems: list[Problem],
) -> dict[str, str]:
    keys = {}
    for alias, declaration in workload.resources.items():
        mode = declaration.binding.mode
        path = join_path(("resources", alias))
        if declaration.binding.pool:
            if (workload.name, alias) in claimed:
                keys[alias] = claimed[workload.name, alias]
        elif refusal := _refusal(alias, declaration.binding, keys_by_id):
            problems.append(workload.problem(path, refusal[0], hint=refusal[1]))
        elif mode == "match":
            keys[alias] = ""  # Its params decide, once they are bound.
        elif mode != "existing":
            keys[alias] = resource_key(snapshot.application, workload.name, declaration)
        elif key := keys_by_id.get(declaration.binding.resource_id.lower()):
            keys[alias] = key
        else:
            problems.append(
                workload.problem(
                    path,
                    f"There is no resource {declaration.binding.resource_id} in the environment "
                    f"{snapshot.environment}.",
                    hint="the id is on the resource's page; it changes when a resource is replaced",
                )
            )
    return keys


def _refusal(alias: str, binding: Binding, keys_by_id: Mapping[str, str]) -> tuple[str, str] | None:
    """Say what of a binding is not offered, and what to do instead."""
    if binding.mode == "existing":
        key = keys_by_id.get(binding.resource_id.lower(), "")
        if key.startswith("pool/"):
            message = f"`{alias}` names a member of a pool, {key}, by its id."
            return message, f"write `pool: {key.split('/')[1]}` to claim a member of your own"
    return None


def _bind(workload: Workload, alias: str, keys: Mapping[str, str]) -> Requirement:
    declaration = workload.resources[alias]
    uses: list[tuple[str, tuple[str, ...]]] = []

    def rewrite(text: str) -> str:
        reference = parse_reference(text, aliases=workload.resources)
        if not reference.alias:
            return literal_text(as_text(look_up(workload.metadata, reference.keys, reference)))
        uses.append((reference.alias, reference.keys))
        return bound_text(keys.get(reference.alias, reference.alias), reference.keys)

    params = bind(declaration.params, rewrite) if declaration.params else None
    depends_on = {
        keys[other]: "weak" if other in declaration.weak_depends_on else "strong"
        for other in declaration.depends_on
        if other in keys
    }
    depends_on |= {keys[other]: "output" for other, _ in uses if other in keys}
    ordered = dict(sorted(depends_on.items()))
    return Requirement(workload, declaration, keys[alias], params, ordered, uses)


def container_references(workload: Workload) -> list[tuple[str, str, tuple[str, ...]]]:
    """List what the containers take from resources: (path in the file, alias, output and below)."""
    found = []
    for name, container in workload.containers.items():
        for path, value in _substituted_parts(name, container):
            for below, reference in references(value):
                if reference.alias and reference.keys:
                    place = f"{path}.{below}" if below else path
                    found.append((place, reference.alias, reference.keys))
    return found


def _substituted_parts(name: str, container: Mapping[str, Json]) -> list[tuple[str, Json]]:
    place = ("containers", name)
    parts = [(join_path((*place, "variables")), container.get("variables", {}))]
    for target, file in container.get("files", {}).items():
        if not file.get("noExpand"):
            parts.append((join_path((*place, "files", target, "content")), file.get("content")))
    for target, volume in container.get("volumes", {}).items():
        parts.append((join_path((*place, "volumes", target, "source")), volume.get("source")))
    return parts
