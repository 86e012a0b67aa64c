"""Plan the members that fill a pool: maintenance that is of no application."""

from __future__ import annotations

from collections.abc import Sequence

from provisioning.exceptions import ConductorError
from provisioning.planning.assembly import Assembly
from provisioning.planning.context import unowned_context
from provisioning.planning.desired import Desired, spec_digest
from provisioning.planning.facts import PoolFacts, Snapshot
from provisioning.planning.naming import resource_name
from provisioning.planning.plan import Plan
from provisioning.planning.settling import pool_settlement


class UnknownPoolError(ConductorError):
    """Say that there is no such pool."""


def decide_fill(name: str, keys: Sequence[str], snapshot: Snapshot) -> Plan:
    """Plan to make the members with these keys; raise UnknownPoolError."""
    pool = snapshot.pools.get(name)
    if pool is None:
        raise UnknownPoolError(f"There is no pool {name} in {snapshot.environment}.")
    desired = {key: _member(pool, key, snapshot) for key in sorted(keys)}
    return Assembly("maintenance", (), (), snapshot.consumers, desired, snapshot).plan()


def _member(pool: PoolFacts, key: str, snapshot: Snapshot) -> Desired:
    context = unowned_context(pool.version, snapshot)
    number = key.rpartition("/")[2]
    real_name = resource_name(
        snapshot.organisation, snapshot.environment, key, pool.type, pool.version.naming
    )
    settled = pool_settlement(pool, snapshot)
    return Desired(
        key=key,
        uid=f"{pool.type}.{pool.class_}#{pool.name}-{number}",
        name=real_name,
        type=pool.type,
        class_=pool.class_,
        version=pool.version,
        params=settled.params,
        context=context,
        spec_digest=spec_digest(pool.version, real_name, settled.params, context),
        depends_on={},
        candidates=(),
        present=None,
        decided_by=settled.decided_by,
    )
