"""Make, resize, drain and list pools."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from semantic_version import Version

from provisioning.exceptions import ConductorError
from provisioning.models import (
    DeletionPolicy,
    Environment,
    Resource,
    ResourcePool,
    ResourceState,
    ResourceTemplate,
    ResourceTemplateVersion,
    SharingPolicy,
    Team,
    VersionState,
)
from provisioning.planning.settling import defaults_of
from provisioning.services.audit import record
from provisioning.services.catalog import param_problems
from provisioning.services.locks import lock_environment
from provisioning.services.people import NotAllowedError, owns
from provisioning.services.pools.tending import tend
from provisioning.services.resources.destroy import destroy_unused

NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
MOST_MEMBERS = 1000
LONGEST_CLAIM = 31_536_000
"""A year, in seconds."""


class PoolError(ConductorError):
    """Refuse a pool, or a size of one, that cannot be."""


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """A pool with the numbers of its members: ready, being made, failed, claimed, leaving."""

    pool: ResourcePool
    ready: int
    making: int
    failed: int
    claimed: int
    leaving: int


def create_pool(
    *,
    environment: Environment,
    team: Team,
    name: str,
    version: ResourceTemplateVersion,
    params: Mapping[str, Any],
    size: int,
    max_size: int,
    actor: User,
    max_concurrent: int = 2,
    sharing_policy: str = SharingPolicy.OPEN,
    claim_seconds: int | None = None,
) -> ResourcePool:
    """Make a pool that `team` owns, and begin to fill it.

    Raises PoolError with what is wrong, or NotAllowedError for others than the team's owners.
    """
    _require_owner(actor, team, name)
    _check_sizes(size, max_size)
    if not NAME.fullmatch(name):
        raise PoolError(f"{name!r} is no name for a pool: use a-z, 0-9, dots and hyphens.")
    if not 1 <= max_concurrent <= MOST_MEMBERS:
        raise PoolError(
            f"One member at least, and {MOST_MEMBERS:,} at most, are made at once, not "
            f"{max_concurrent:,}."
        )
    if claim_seconds is not None and not 1 <= claim_seconds <= LONGEST_CLAIM:
        raise PoolError(f"A claim lasts 1 to {LONGEST_CLAIM:,} seconds, not {claim_seconds:,}.")
    if sharing_policy not in (SharingPolicy.OPEN, SharingPolicy.CLOSED):
        raise PoolError(f"A pool is open or closed to other teams, not {sharing_policy}.")
    _check_version(environment, team, version)
    defaults = defaults_of(version.template.type, version.params_schema, environment.defaults)
    if problems := list(param_problems(params, version, defaults)):
        raise PoolError("\n".join(problems))
    with transaction.atomic():
        lock_environment(environment)
        if ResourcePool.objects.filter(environment=environment, name=name).exists():
            raise PoolError(f"There is a pool {name} in {environment.name} already.")
        pool = ResourcePool.objects.create(
            environment=environment,
            owner_team=team,
            name=name,
            template_version=version,
            params=dict(params),
            size=size,
            max_size=max_size,
            max_concurrent=max_concurrent,
            sharing_policy=sharing_policy,
            claim_seconds=claim_seconds,
        )
        _note(actor, pool, "created", f"{size} ready, {max_size} at most.")
        tend(pool)
    return pool


def newest_version(template: ResourceTemplate) -> ResourceTemplateVersion:
    """Return the highest active version of a template; raise PoolError if it has none."""
    active = template.versions.filter(state=VersionState.ACTIVE).defer("archive")
    versions = sorted(active, key=lambda each: Version(each.version))
    if not versions:
        raise PoolError(f"The template {template} has no active version.")
    return versions[-1]


def resize_pool(
    *, pool: ResourcePool, actor: User, size: int | None = None, max_size: int | None = None
) -> ResourcePool:
    """Change how many members are kept ready, or may be; only unclaimed ones are destroyed.

    Raises PoolError or NotAllowedError.
    """
    _require_owner(actor, pool.owner_team, pool.name)
    with transaction.atomic():
        lock_environment(pool.environment)
        pool.refresh_from_db()
        before = f"{pool.size} ready, {pool.max_size} at most"
        pool.size = pool.size if size is None else size
        pool.max_size = pool.max_size if max_size is None else max_size
        _check_sizes(pool.size, pool.max_size)
        pool.save(update_fields=["size", "max_size"])
        now = f"{pool.size} ready, {pool.max_size} at most"
        _note(actor, pool, "resized", f"{now}; before: {before}.")
        tend(pool)
    destroy_unused()
    return pool


def drain_pool(*, pool: ResourcePool, actor: User) -> ResourcePool:
    """Keep no members ready any more: the unclaimed are destroyed, the claimed stay."""
    return resize_pool(pool=pool, actor=actor, size=0)


def list_pools(*, environment: Environment) -> list[PoolStatus]:
    """Return the environment's pools with the numbers of their members, by name."""
    pools = ResourcePool.objects.filter(environment=environment)
    counts: dict[int | None, Counter[str]] = {}
    members = Resource.objects.filter(pool__in=pools).exclude(state=ResourceState.DELETED)
    for member in members.prefetch_related("consumers"):
        counts.setdefault(member.pool_id, Counter())[_part(member)] += 1
    rows = pools.select_related("owner_team", "template_version__template")
    return [
        PoolStatus(pool, **{part: counts.get(pool.pk, Counter())[part] for part in PARTS})
        for pool in rows.defer("template_version__archive").order_by("name")
    ]


PARTS = ("ready", "making", "failed", "claimed", "leaving")


def _part(member: Resource) -> str:
    if member.state == ResourceState.DELETING:
        return "leaving"
    if member.claimed_at is not None:
        used = any(consumer.state == "active" for consumer in member.consumers.all())
        return "claimed" if used else "leaving"
    if member.state == ResourceState.ACTIVE:
        return "ready"
    return "failed" if member.state == ResourceState.FAILED else "making"


def _require_owner(actor: User, team: Team, name: str) -> None:
    if not owns(actor, team):
        raise NotAllowedError(
            f"{actor.username} may not decide about the pool {name}: that is for the owners of the "
            f"team {team.name} and for platform engineers (staff users)."
        )


def _check_sizes(size: int, max_size: int) -> None:
    if not 0 <= size <= max_size <= MOST_MEMBERS:
        raise PoolError(
            f"A pool keeps at least 0 members ready, no more than its most, which is {MOST_MEMBERS:,} "
            f"or less; {size} of at most {max_size} cannot be."
        )


def _check_version(environment: Environment, team: Team, version: ResourceTemplateVersion) -> None:
    organisation = environment.organisation_id
    if {version.template.organisation_id, team.organisation_id} != {organisation}:
        raise PoolError("The template, the team and the environment are of one organisation.")
    if version.state != VersionState.ACTIVE:
        raise PoolError(f"{version.template} {version.version} is {version.state}, not active.")
    if version.deletion_policy == DeletionPolicy.RETAIN:
        raise PoolError(
            f"What {version.template} makes is retained, and a returned member has to be destroyed."
        )
    if version.requirements or version.co_provision:
        raise PoolError(
            f"{version.template} needs further resources beside it, and a pool keeps single ones ready."
        )


def _note(actor: User, pool: ResourcePool, action: str, reason: str) -> None:
    record(
        actor=actor,
        action=f"pool.{action}",
        subject_type="pool",
        subject_id=pool.pk,
        subject=pool.name,
        reason=reason,
    )
