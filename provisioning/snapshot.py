"""Read the models once, into the plain data that planning decides on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import timedelta
from operator import attrgetter
from uuid import UUID

from django.db.models import Q
from django.db.models.functions import Now
from semantic_version import Version

from provisioning.drivers import get_driver
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
    ResourceTemplate,
    ResourceTemplateVersion,
    SharingPolicy,
    Step,
    StepStatus,
    TemplateRule,
    VersionState,
    Worker,
    Workload,
)
from provisioning.planning.facts import (
    ConsumerFacts,
    PoolFacts,
    ResourceFacts,
    RuleFacts,
    SlotFacts,
    Snapshot,
    TemplateFacts,
    VersionFacts,
    WorkloadFacts,
)

WORKER_ALIVE = timedelta(seconds=60)


def take(
    application: Application, environment: Environment, *, claiming: Collection[str] = ()
) -> Snapshot:
    """Read an application's place in an environment, and everything there it may meet.

    The caller holds the environment's lock if the plan is to be carried out. In that case the ready
    members of the pools named in `claiming` are locked, and those that somebody else has locked are
    not ready.
    """
    locked = _lock_ready(environment, claiming) if claiming else None
    templates = read_templates(application.organisation_id)
    resources = _resources(environment, application)
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
        consumers=_consumers(environment),
        dependencies=_dependencies(environment),
        workloads={
            each.name: WorkloadFacts(each.name, each.ports, each.metadata)
            for each in workloads.order_by("name")
        },
        missing_tools=_missing_tools(templates.values(), environment.queue),
        protected=environment.protected,
        pools=_pools(environment, resources, locked),
    )


def take_environment(environment: Environment) -> Snapshot:
    """Read the resources of an environment, for maintenance, which is of no application."""
    resources = _resources(environment, None)
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
        consumers=_consumers(environment),
        dependencies=_dependencies(environment),
        pools=_pools(environment, resources, None),
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
        if each.pool:
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


def _consumers(environment: Environment) -> list[ConsumerFacts]:
    rows = (
        ResourceConsumer.objects.filter(
            resource__environment=environment, state=ConsumerState.ACTIVE
        )
        .select_related("workload__application__team", "resource")
        .order_by("pk")
    )
    return [_consumer_facts(consumer) for consumer in rows]


def _dependencies(environment: Environment) -> dict[tuple[str, str], str]:
    rows = (
        ResourceDependency.objects.filter(source__environment=environment)
        .exclude(source__state=ResourceState.DELETED)
        .select_related("source", "target")
        .order_by("pk")
    )
    return {(each.source.key, each.target.key): each.kind for each in rows}


def read_templates(organisation_id: int) -> dict[int, TemplateFacts]:
    """Read an organisation's templates, each with its newest active version."""
    newest: dict[int, VersionFacts] = {}
    active = (
        ResourceTemplateVersion.objects.filter(
            template__organisation=organisation_id, state=VersionState.ACTIVE
        )
        .select_related("template")
        .defer("archive")
    )
    for version in sorted(active, key=lambda each: Version(each.version)):
        newest[version.template_id] = version_facts(version)
    return {
        template.pk: TemplateFacts(template.pk, template.name, newest.get(template.pk))
        for template in ResourceTemplate.objects.filter(organisation=organisation_id)
    }


def version_facts(version: ResourceTemplateVersion) -> VersionFacts:
    """Return what deciding needs of a template version, its content left aside."""
    return VersionFacts(
        id=version.pk,
        template=version.template.name,
        version=version.version,
        digest=version.digest,
        driver=version.template.driver,
        params_schema=version.params_schema,
        outputs={output["name"]: bool(output.get("sensitive")) for output in version.outputs},
        uses=tuple(version.uses),
        deletion_policy=version.deletion_policy,
        share_when=version.share_when,
        merge_rules=version.merge_rules,
        shrink=version.shrink,
        grace=version.grace_seconds,
        requirements=version.requirements,
        co_provision=version.co_provision,
        inputs=version.inputs,
        share_same=tuple(version.share_same),
        naming=version.naming,
    )


def read_rules(organisation_id: int) -> list[RuleFacts]:
    """Read an organisation's template rules."""
    rules = TemplateRule.objects.filter(organisation=organisation_id).select_related(
        "environment", "application"
    )
    return [
        RuleFacts(
            template_id=rule.template_id,
            type=rule.type,
            class_=rule.class_name,
            resource_id=rule.resource_id,
            environment_kind=rule.environment_kind,
            environment=rule.environment.name if rule.environment else "",
            application=rule.application.name if rule.application else "",
        )
        for rule in rules.order_by("pk")
    ]


def _resources(environment: Environment, application: Application | None) -> list[ResourceFacts]:
    """Read the live resources; each template version they have is read once."""
    rows = (
        Resource.objects.filter(environment=environment)
        .exclude(state=ResourceState.DELETED)
        .select_related("owner_team", "created_by", "pool")
        .order_by("key")
    )
    granted: set[UUID] = set()
    if application is not None:
        grants = Grant.objects.filter(Q(application=application) | Q(team=application.team_id))
        granted.update(grants.values_list("resource_id", flat=True))
    used = ResourceTemplateVersion.objects.filter(resources__in=rows.values("pk")).distinct()
    versions = {
        version.pk: version_facts(version)
        for version in used.select_related("template").defer("archive")
    }
    troubles = _troubles(environment)
    return [
        ResourceFacts(
            id=str(row.pk),
            key=row.key,
            name=row.name,
            uid=row.uid,
            type=row.type,
            class_=row.class_name,
            version=versions[row.template_version_id],
            params=row.params,
            context=row.context,
            spec_digest=row.spec_digest,
            owner_team=row.owner_team.name,
            created_by=row.created_by.name if row.created_by else "",
            clean=row.state == ResourceState.ACTIVE and row.applied_spec_digest == row.spec_digest,
            deleting=row.state == ResourceState.DELETING,
            protected=row.protected,
            sharing_policy=row.sharing_policy,
            granted=row.pk in granted,
            deletion_policy=row.deletion_policy,
            slot=_slot(row),
            pool=row.pool.name if row.pool else "",
            claimed=row.claimed_at is not None,
            created_at=row.created_at.isoformat(),
            floor=row.floor,
            adopted=row.adopted,
            grace=row.grace_after(versions[row.template_version_id].grace),
            trouble=troubles.get(row.pk, ""),
        )
        for row in rows
    ]


def _slot(row: Resource) -> SlotFacts | None:
    if row.slot_ordinal is None:
        return None
    return SlotFacts(row.match_slot, row.slot_ordinal, row.max_consumers, row.share_conditionally)


def _troubles(environment: Environment) -> dict[UUID, str]:
    """Say, by failed resource, in which deployment the last step on it failed."""
    failed = (
        Step.objects.filter(
            resource__environment=environment,
            resource__state=ResourceState.FAILED,
            status=StepStatus.FAILED,
        )
        .order_by("resource", "-pk")
        .distinct("resource")
        .values_list("resource", "deployment", "deployment__application__name")
    )
    return {
        resource: f"deployment {deployment} of {application or 'the platform'} failed on it"
        for resource, deployment, application in failed
    }


def _consumer_facts(consumer: ResourceConsumer) -> ConsumerFacts:
    return ConsumerFacts(
        application=consumer.workload.application.name,
        workload=consumer.workload.name,
        alias=consumer.alias,
        key=consumer.resource.key,
        mode=consumer.mode,
        params=consumer.params,
        depends_on=tuple(consumer.depends_on),
        matching=consumer.matching,
        priority=consumer.priority,
        team=consumer.workload.application.team.name,
    )


def _missing_tools(templates: Iterable[TemplateFacts], queue: str) -> dict[str, str]:
    """Name, by driver, the tools that no worker of the queue has.

    Workers tell what they have. Before the first one has ever started, this machine is asked.
    """
    drivers = {template.newest.driver for template in templates if template.newest}
    workers = [each for each in Worker.objects.order_by("-last_seen_at") if queue in each.queues]
    alive = Worker.objects.filter(
        last_seen_at__gte=Now() - WORKER_ALIVE, stopped_at__isnull=True
    ).values_list("pk", flat=True)
    living = [worker for worker in workers if worker.pk in set(alive)]
    missing = {}
    for name in sorted(drivers):
        tool = get_driver(name).tool()
        if tool is None:
            continue
        found = (
            any(tool[0] in worker.tools for worker in living or workers[:1])
            if workers
            else tool[1] is not None
        )
        if not found:
            missing[name] = tool[0]
    return missing
