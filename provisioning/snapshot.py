"""Read the models once, into the plain data that planning decides on."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from django.db.models.functions import Now
from semantic_version import Version

from provisioning.drivers import get_driver
from provisioning.models import (
    Application,
    ConsumerState,
    Environment,
    Resource,
    ResourceConsumer,
    ResourceDependency,
    ResourceState,
    ResourceTemplate,
    ResourceTemplateVersion,
    TemplateRule,
    VersionState,
    Worker,
    Workload,
)
from provisioning.planning.facts import (
    ConsumerFacts,
    ResourceFacts,
    RuleFacts,
    Snapshot,
    TemplateFacts,
    VersionFacts,
    WorkloadFacts,
)

WORKER_ALIVE = timedelta(seconds=60)


def take(application: Application, environment: Environment) -> Snapshot:
    """Read an application's place in an environment, and everything there it may meet.

    The caller holds the environment's lock if the plan is to be carried out.
    """
    templates = _templates(application.organisation_id)
    resources = _resources(environment)
    consumers = (
        ResourceConsumer.objects.filter(
            resource__environment=environment, state=ConsumerState.ACTIVE
        )
        .select_related("workload__application", "resource")
        .order_by("pk")
    )
    dependencies = (
        ResourceDependency.objects.filter(source__environment=environment)
        .exclude(source__state=ResourceState.DELETED)
        .select_related("source", "target")
        .order_by("pk")
    )
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
        templates=templates,
        rules=_rules(application.organisation_id),
        resources={resource.key: resource for resource in resources},
        consumers=[_consumer_facts(consumer) for consumer in consumers],
        dependencies={(each.source.key, each.target.key): each.kind for each in dependencies},
        workloads={
            each.name: WorkloadFacts(each.name, each.ports, each.metadata)
            for each in workloads.order_by("name")
        },
        missing_tools=_missing_tools(templates.values(), environment.queue),
    )


def _templates(organisation_id: int) -> dict[int, TemplateFacts]:
    newest: dict[int, VersionFacts] = {}
    active = (
        ResourceTemplateVersion.objects.filter(
            template__organisation=organisation_id, state=VersionState.ACTIVE
        )
        .select_related("template")
        .defer("archive")
    )
    for version in sorted(active, key=lambda each: Version(each.version)):
        newest[version.template_id] = _version_facts(version)
    return {
        template.pk: TemplateFacts(template.pk, template.name, newest.get(template.pk))
        for template in ResourceTemplate.objects.filter(organisation=organisation_id)
    }


def _version_facts(version: ResourceTemplateVersion) -> VersionFacts:
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
    )


def _rules(organisation_id: int) -> list[RuleFacts]:
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


def _resources(environment: Environment) -> list[ResourceFacts]:
    """Read the live resources; each template version they have is read once."""
    rows = (
        Resource.objects.filter(environment=environment)
        .exclude(state=ResourceState.DELETED)
        .select_related("owner_team", "created_by")
        .order_by("key")
    )
    used = ResourceTemplateVersion.objects.filter(resources__in=rows.values("pk")).distinct()
    versions = {
        version.pk: _version_facts(version)
        for version in used.select_related("template").defer("archive")
    }
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
            deletion_policy=row.deletion_policy,
        )
        for row in rows
    ]


def _consumer_facts(consumer: ResourceConsumer) -> ConsumerFacts:
    return ConsumerFacts(
        application=consumer.workload.application.name,
        workload=consumer.workload.name,
        alias=consumer.alias,
        key=consumer.resource.key,
        mode=consumer.mode,
        params=consumer.params,
        depends_on=tuple(consumer.depends_on),
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
