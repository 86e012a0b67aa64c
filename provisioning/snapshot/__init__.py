"""Read the models once, into the plain data that planning decides on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from operator import attrgetter
from types import MappingProxyType
from typing import Any
from uuid import UUID

from django.db.models import Q

from provisioning.models import (
    Application,
    ConsumerState,
    Environment,
    Grant,
    Resource,
    ResourceConsumer,
    ResourceDependency,
    ResourcePool,
    ResourceState,
    ResourceTemplateVersion,
    SharingPolicy,
    Step,
    StepStatus,
    Workload,
)
from provisioning.planning.addresses import environment_of
from provisioning.planning.facts import (
    ConsumerFacts,
    EnvironmentFacts,
    PoolFacts,
    ResourceFacts,
    SlotFacts,
    Snapshot,
    WorkloadFacts,
)
from provisioning.snapshot.catalog import read_rules, read_templates, version_facts
from provisioning.snapshot.reach import Searched, is_linked, resources_elsewhere
from provisioning.snapshot.tools import Tools
from provisioning.snapshot.view import View

__all__ = ["read_rules", "read_templates", "take", "take_environment", "version_facts"]

NOTHING: Searched = MappingProxyType({})


def take(
    application: Application,
    environment: Environment,
    *,
    claiming: Collection[str] = (),
    searched: Searched = NOTHING,
) -> Snapshot:
    """Read an application's place in an environment, and everything it may meet.

    That is all of the environment and, of others, what is used from here, what uses something of
    here, and what is `searched`. The caller holds the environment's lock if the plan is to be
    carried out. In that case the ready members of the pools named in `claiming` are locked, and
    those that somebody else has locked are not ready.
    """
    locked = _lock_ready(environment, claiming) if claiming else None
    templates = read_templates(application.organisation_id)
    read = _Reader(environment, searched)
    resources = read.resources(application)
    drivers = {template.newest.driver for template in templates.values() if template.newest}
    workloads = Workload.objects.filter(
        application=application, environment=environment, removed_at__isnull=True
    )
    return Snapshot(
        organisation=application.organisation.name,
        application=application.name,
        team=application.team.name,
        environment=environment.name,
        environment_kind=environment.kind,
        tags=environment.tags,
        variables=environment.variables,
        defaults=environment.defaults,
        templates=templates,
        rules=read_rules(application.organisation_id),
        resources={resource.key: resource for resource in resources},
        consumers=read.consumers(),
        dependencies=read.dependencies(),
        workloads={
            each.name: WorkloadFacts(each.name, each.ports, each.metadata)
            for each in workloads.order_by("name")
        },
        missing_tools=read.tools.missing(drivers, environment.queue),
        protected=environment.protected,
        pools=_pools(environment, resources, locked),
        elsewhere=read.elsewhere(resources),
    )


def take_environment(environment: Environment) -> Snapshot:
    """Read the resources of an environment, for maintenance, which is of no application."""
    read = _Reader(environment, NOTHING)
    resources = read.resources(None)
    return Snapshot(
        organisation=environment.organisation.name,
        application="",
        team="",
        environment=environment.name,
        environment_kind=environment.kind,
        tags=environment.tags,
        variables=environment.variables,
        defaults=environment.defaults,
        resources={resource.key: resource for resource in resources},
        consumers=read.consumers(),
        dependencies=read.dependencies(),
        pools=_pools(environment, resources, None),
        elsewhere=read.elsewhere(resources),
    )


def _lock_ready(environment: Environment, names: Collection[str]) -> set[str]:
    """Lock the unclaimed members of pools that nobody else has locked; return their keys."""
    members = Resource.objects.select_for_update(skip_locked=True, no_key=True, of=("self",))
    unclaimed = members.filter(
        environment=environment,
        pool__name__in=names,
        claimed_at=None,
        state=ResourceState.ACTIVE,
    )
    return set(unclaimed.order_by("pk").values_list("key", flat=True))


def _pools(
    environment: Environment, resources: Iterable[ResourceFacts], locked: Collection[str] | None
) -> dict[str, PoolFacts]:
    """Read the pools; with `locked`, only its keys are ready."""
    members: dict[str, list[ResourceFacts]] = defaultdict(list)
    for each in resources:
        if each.pool and not environment_of(each.key):
            members[each.pool].append(each)
    rows = ResourcePool.objects.filter(environment=environment).order_by("name")
    pools = rows.select_related("template_version__template", "owner_team")
    return {
        pool.name: PoolFacts(
            name=pool.name,
            type=pool.template_version.template.type,
            class_=pool.template_version.template.class_name,
            version=version_facts(pool.template_version),
            params=pool.params,
            owner_team=pool.owner_team.name,
            max_size=pool.max_size,
            members=len(members[pool.name]),
            ready=tuple(
                each.key
                for each in sorted(members[pool.name], key=attrgetter("created_at", "key"))
                if each.clean and not each.claimed and (locked is None or each.key in locked)
            ),
            closed=pool.sharing_policy == SharingPolicy.CLOSED,
        )
        for pool in pools.defer("template_version__archive")
    }


class _Reader:
    """Read what is in an environment and what it may meet of others, as it sees that."""

    def __init__(self, environment: Environment, searched: Searched) -> None:
        self._environment = environment
        self._view = View(environment)
        self.tools = Tools()
        self._crosses = is_linked(environment)
        beyond = self._crosses or bool(searched)
        self._ids = resources_elsewhere(environment, searched) if beyond else frozenset()

    def resources(self, application: Application | None) -> list[ResourceFacts]:
        """Read the live resources; each template version they have is read once."""
        rows = (
            Resource.objects.filter(self._is_met())
            .exclude(state=ResourceState.DELETED)
            .select_related("owner_team", "created_by", "pool")
            .order_by("key", "environment")
        )
        granted: set[UUID] = set()
        if application is not None:
            grants = Grant.objects.filter(Q(application=application) | Q(team=application.team_id))
            granted.update(grants.values_list("resource_id", flat=True))
        used = ResourceTemplateVersion.objects.filter(
            pk__in={row.template_version_id for row in rows}
        )
        versions = {
            version.pk: version_facts(version)
            for version in used.select_related("template").defer("archive")
        }
        troubles = _troubles(row.pk for row in rows if row.state == ResourceState.FAILED)
        view = self._view
        return [
            ResourceFacts(
                id=str(row.pk),
                key=view.address(row.key, row.environment_id),
                name=row.name,
                uid=row.uid,
                type=row.type,
                class_=row.class_name,
                version=versions[row.template_version_id],
                params=view.params(row.params, row.environment_id),
                context=row.context,
                spec_digest=row.spec_digest,
                owner_team=view.team(row.owner_team.name, row.environment_id),
                created_by=view.application(row.created_by.name, row.environment_id)
                if row.created_by
                else "",
                clean=row.state == ResourceState.ACTIVE
                and row.applied_spec_digest == row.spec_digest,
                deleting=row.state == ResourceState.DELETING,
                protected=row.protected,
                sharing_policy=row.sharing_policy,
                granted=row.pk in granted,
                deletion_policy=row.deletion_policy,
                slot=_slot(row),
                pool=row.pool.name if row.pool else "",
                claimed=row.claimed_at is not None,
                published=row.published,
                created_at=row.created_at.isoformat(),
                floor=view.params(row.floor, row.environment_id),
                adopted=row.adopted,
                importing=tuple(sorted(row.imports)),
                grace=row.grace_after(versions[row.template_version_id].grace),
                trouble=troubles.get(row.pk, ""),
            )
            for row in rows
        ]

    def consumers(self) -> list[ConsumerFacts]:
        """Read who uses these resources, from wherever."""
        rows = ResourceConsumer.objects.filter(self._is_met("resource"), state=ConsumerState.ACTIVE)
        return [
            self._consumer(row)
            for row in rows.order_by("pk").values_list(*_CONSUMER_FIELDS, named=True)
        ]

    def dependencies(self) -> dict[tuple[str, str], str]:
        """Read what they need, and what needs them."""
        rows = ResourceDependency.objects.exclude(source__state=ResourceState.DELETED)
        met = self._is_met("source")
        if self._crosses or self._ids:
            met |= self._is_met("target")
        ends = ("source__key", "source__environment", "target__key", "target__environment", "kind")
        address = self._view.address
        return {
            (address(source, at), address(target, there)): kind
            for source, at, target, there, kind in rows.filter(met)
            .order_by("pk")
            .values_list(*ends)
        }

    def elsewhere(self, resources: Iterable[ResourceFacts]) -> dict[str, EnvironmentFacts]:
        """Read what counts of the other environments in which any of the given resources are."""
        drivers: dict[str, set[str]] = defaultdict(set)
        for each in resources:
            if path := environment_of(each.key):
                drivers[path].add(each.version.driver)
        if not drivers:
            return {}
        pks = [self._view.pks[path] for path in sorted(drivers)]
        return {
            path: EnvironmentFacts(
                defaults=row.defaults,
                missing_tools=self.tools.missing(drivers[path], row.queue),
                protected=row.protected,
            )
            for row in Environment.objects.filter(pk__in=pks).order_by("pk")
            for path in [self._view.paths[row.pk]]
        }

    def _is_met(self, resource: str = "") -> Q:
        """Match what is about the resources that are read; `resource` is the way to it."""
        here = Q(**{f"{resource}__environment" if resource else "environment": self._environment})
        if not self._ids:
            return here
        return here | Q(**{f"{resource}__in" if resource else "pk__in": self._ids})

    def _consumer(self, row: Any) -> ConsumerFacts:
        view, at = self._view, row.workload__environment
        return ConsumerFacts(
            application=view.application(row.workload__application__name, at),
            workload=row.workload__name,
            alias=row.alias,
            key=view.address(row.resource__key, row.resource__environment),
            mode=row.mode,
            params=view.params(row.params, at),
            depends_on=tuple(view.seen(each, at) for each in row.depends_on),
            matching=row.matching,
            priority=row.priority,
            team=view.team(row.workload__application__team__name, at),
        )


_CONSUMER_FIELDS = (
    *("alias", "mode", "params", "depends_on", "matching", "priority"),
    *("resource__key", "resource__environment", "workload__environment", "workload__name"),
    *("workload__application__name", "workload__application__team__name"),
)
"""As plain rows: a decision reads all consumers of its environment."""


def _troubles(failed: Iterable[UUID]) -> dict[UUID, str]:
    """Say, by failed resource, in which deployment the last step on it failed."""
    rows = (
        Step.objects.filter(resource__in=list(failed), status=StepStatus.FAILED)
        .order_by("resource", "-pk")
        .distinct("resource")
        .values_list("resource", "deployment", "deployment__application__name")
    )
    return {
        resource: f"deployment {deployment} of {application or 'the platform'} failed on it"
        for resource, deployment, application in rows
    }


def _slot(row: Resource) -> SlotFacts | None:
    if row.slot_ordinal is None:
        return None
    return SlotFacts(row.match_slot, row.slot_ordinal, row.max_consumers, row.share_conditionally)
