"""Plan maintenance: destroy a resource, take in what exists as one, or roll a deployment back."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from provisioning.exceptions import ConductorError
from provisioning.planning.addresses import spoken
from provisioning.planning.assembly import Assembly
from provisioning.planning.desired import as_it_is
from provisioning.planning.facts import ConsumerFacts, ResourceFacts, Snapshot
from provisioning.planning.lifecycle import destroyed_after
from provisioning.planning.plan import Plan


class HeldResourceError(ConductorError):
    """Refuse to destroy or forget a resource that is held, naming what holds it."""


def decide_destroy(key: str, snapshot: Snapshot, *, forced: bool = False) -> Plan:
    """Plan to destroy one resource, and what nothing holds once it is gone.

    A grace period does not stop it. Raises HeldResourceError, unless `forced`, if anything else
    holds it; what was adopted is never destroyed.
    """
    resource = snapshot.resources.get(key)
    if resource is None or resource.deleting:
        raise HeldResourceError(
            f"Cannot destroy {short_name(key)}: "
            + ("there is no such resource." if resource is None else "it is being destroyed.")
        )
    if resource.adopted:
        raise HeldResourceError(
            f"Cannot destroy {short_name(key)}: it was adopted, and Conductor destroys only what it "
            "made. Use resource detach to forget it."
        )
    if not forced:
        _check_not_held(resource, snapshot)
    return Assembly(
        "maintenance", (), (), snapshot.consumers, {}, snapshot, condemned=frozenset({key})
    ).plan()


def decide_ensure(key: str, snapshot: Snapshot) -> Plan:
    """Plan to bring about one resource that is there already, as it is desired.

    Raises HeldResourceError if it is gone.
    """
    resource = snapshot.resources.get(key)
    if resource is None or resource.deleting:
        raise HeldResourceError(f"{short_name(key)} is gone, or being destroyed.")
    needs = {target: kind for (of, target), kind in snapshot.dependencies.items() if of == key}
    desired = {key: as_it_is(resource, needs)}
    return Assembly(
        "maintenance", (), (), snapshot.consumers, desired, snapshot, looked_at=frozenset({key})
    ).plan()


def decide_roll_back(keys: Collection[str], snapshot: Snapshot) -> Plan:
    """Plan to destroy those of the resources that nothing holds, and nothing besides them."""
    only = _only(keys, snapshot)
    return Assembly(
        "maintenance",
        (),
        (),
        snapshot.consumers,
        {},
        only,
        condemned=frozenset(unneeded(keys, snapshot)),
        why_condemned="made by the deployment that is rolled back",
    ).plan()


def unneeded(keys: Collection[str], snapshot: Snapshot) -> set[str]:
    """Return which of the resources nothing holds but each other; a grace period does not."""
    only = _only(keys, snapshot)
    used = {consumer.key for consumer in snapshot.consumers}
    return destroyed_after(only.resources, used, snapshot.dependencies, only, {})


def _only(keys: Collection[str], snapshot: Snapshot) -> Snapshot:
    """Leave no resources but these in a snapshot, so that none besides them is destroyed."""
    resources = {
        key: replace(snapshot.resources[key], grace=0)
        for key in sorted(keys)
        if key in snapshot.resources and not snapshot.resources[key].deleting
    }
    return replace(snapshot, resources=resources)


def short_name(key: str) -> str:
    """Return the name by which people know a resource: the shared name, otherwise the key."""
    return spoken(key).removeprefix("shared/")


def consumer_name(application: str, workload: str) -> str:
    """Name a workload in a sentence; one that is named like its application is named once."""
    return workload if workload == application else f"{application}/{workload}"


def consumer_names(consumers: Sequence[ConsumerFacts], key: str) -> list[str]:
    """Name the workloads that use a resource."""
    return sorted(
        {consumer_name(each.application, each.workload) for each in consumers if each.key == key}
    )


def _check_not_held(resource: ResourceFacts, snapshot: Snapshot) -> None:
    name = short_name(resource.key)
    users = consumer_names(snapshot.consumers, resource.key)
    needing = sorted(
        short_name(source)
        for source, target in snapshot.dependencies
        if target == resource.key and source in snapshot.resources
    )
    if users or needing:
        raise HeldResourceError(
            f"Cannot destroy {name}, referenced by: {', '.join([*users, *needing])}\n"
            "Use --force --reason TEXT to destroy it anyway (will break what references it)."
        )
    if resource.pool and not resource.claimed:
        raise HeldResourceError(
            f"Cannot destroy {name}: it is an unclaimed member of the pool {resource.pool}. Use pool "
            "resize or pool drain, which destroy unclaimed members."
        )
    if resource.protected:
        raise HeldResourceError(
            f"Cannot destroy {name}: it is protected. Use resource unprotect first."
        )
    if resource.deletion_policy == "retain":
        raise HeldResourceError(
            f"Cannot destroy {name}: its deletion policy is retain. Use resource release first."
        )
