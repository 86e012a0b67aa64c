"""Take an existing thing in as a resource that its driver manages from then on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction

from provisioning import snapshot
from provisioning.drivers import get_driver
from provisioning.drivers.base import DriverError, Importer
from provisioning.models import (
    ConsumerState,
    Deployment,
    DeploymentKind,
    DeploymentStatus,
    Environment,
    Resource,
    ResourceState,
    ResourceTemplate,
    ResourceTemplateVersion,
    Team,
)
from provisioning.models.steps import UNFINISHED_STEP_STATUSES
from provisioning.planning.context import unowned_context
from provisioning.planning.maintenance import consumer_name, short_name
from provisioning.planning.settling import params_with_defaults
from provisioning.services import transitions
from provisioning.services.audit import record
from provisioning.services.catalog import param_problems, unpack
from provisioning.services.deployments.requests import Request
from provisioning.services.deployments.start import start, store_plan
from provisioning.services.locks import lock_environment
from provisioning.services.people import require_staff
from provisioning.services.resources.adopt import (
    AdoptionError,
    live_resource,
    new_shared,
    version_of,
)

Imports = Sequence[tuple[str, str]]
"""Places in a template, such as Terraform's addresses, and the ids of what is there: pairs."""

REPLACED = (
    "owner_team", "name", "uid", "type", "class_name", "template_version", "params", "context",
    "spec_digest", "deletion_policy", "imports", "import_changes",
)  # fmt: skip
"""What trying a failed import anew replaces."""


def import_resource(
    *,
    environment: Environment,
    name: str,
    type_: str,
    class_: str = "default",
    template: ResourceTemplate,
    version: str = "",
    team: Team,
    imports: Imports,
    params: Mapping[str, Any] | None = None,
    allow_changes: bool = False,
    actor: User,
) -> Deployment:
    """Store the shared resource `name`, and start the maintenance whose driver takes things in as it.

    Its step fails, and nothing is done, if the driver would do more than that, unless it is allowed
    to. Once it has succeeded, the resource is like any other, with the policy `retain`; until then
    whatever ensures it tries again, and another call replaces the failed one. Raises AdoptionError
    with what does not fit; NotAllowedError unless the actor is staff.
    """
    require_staff(actor, "adopt a resource")
    chosen = version_of(template, type_, class_, version)
    facts = snapshot.take_environment(environment)
    version_facts = snapshot.version_facts(chosen)
    given = params_with_defaults(params or {}, type_, version_facts, facts)
    context = unowned_context(version_facts, facts)
    wanted = new_shared(environment, name, type_, class_, chosen, team, given, context)
    wanted.imports = _checked(chosen, imports, given)
    wanted.import_changes = allow_changes
    with transaction.atomic():
        lock_environment(environment)
        resource = _stored(wanted, actor)
        deployment = _submit(resource, actor)
        record(
            actor=actor,
            action="resource.import_asked",
            subject_type="resource",
            subject_id=resource.pk,
            subject=resource.key,
            reason=_reason(resource),
            deployment_id=deployment.pk,
        )
    return deployment


def _checked(
    version: ResourceTemplateVersion, imports: Imports, params: Mapping[str, Any]
) -> dict[str, str]:
    """Return the imports as the driver writes them; raise AdoptionError with all that is wrong."""
    template = version.template
    driver = get_driver(template.driver)
    if not isinstance(driver, Importer):
        raise AdoptionError(
            f"The template {template.name} is for the driver {template.driver}, which cannot import. "
            "Adopt it with its outputs instead."
        )
    if version.requirements or version.inputs:
        raise AdoptionError(
            f"The template {template.name} requires further resources, which come with a Score file "
            "only. Adopt it with its outputs instead."
        )
    if not imports:
        raise AdoptionError("Name at least one thing that is to be imported.")
    problems = list(param_problems(params, version))
    try:
        checked = driver.check_imports(unpack(version), imports)
    except DriverError as error:
        problems.append(str(error))
    if problems:
        raise AdoptionError("\n".join(problems))
    return checked


def _stored(wanted: Resource, actor: User) -> Resource:
    """Store a new resource, or put it in the place of one whose import failed."""
    present = live_resource(wanted.environment, wanted.key)
    if present is None:
        transitions.begin([wanted], ResourceState.PROVISIONING, actor=actor.get_username())
        return wanted
    _check_failed(present)
    for field in REPLACED:
        setattr(present, field, getattr(wanted, field))
    present.save(update_fields=[*REPLACED, "updated_at"])
    return present


def _check_failed(present: Resource) -> None:
    name, place = short_name(present.key), present.environment.name
    if not present.imports or present.state != ResourceState.FAILED:
        raise AdoptionError(f"{place} has a shared resource {name} already.")
    working = present.steps.filter(status__in=UNFINISHED_STEP_STATUSES).first()
    if working:
        raise AdoptionError(
            f"Deployment {working.deployment_id} is at work on {name}. Wait for its end."
        )
    consumers = present.consumers.filter(state=ConsumerState.ACTIVE)
    users = [
        consumer_name(each.workload.application.name, each.workload.name)
        for each in consumers.select_related("workload__application").order_by("pk")
    ]
    if users:
        raise AdoptionError(
            f"{name} is used by {', '.join(dict.fromkeys(users))} already: deploy that again, which "
            "tries to import again."
        )


def _submit(resource: Resource, actor: User) -> Deployment:
    request = Request(ensure=resource.key)
    deployment = Deployment(
        kind=DeploymentKind.MAINTENANCE,
        environment=resource.environment,
        resource=resource,
        ensures=True,
        reason=_reason(resource),
        requested_by=actor,
    )
    plan, resources = request.plan_on_locked(None, resource.environment)
    store_plan(deployment, plan)
    by = actor.get_username()
    transitions.begin([deployment], DeploymentStatus.WAITING, actor=by, reason=deployment.reason)
    start(deployment, plan, resources, (), actor=by)
    return deployment


def _reason(resource: Resource) -> str:
    told = ", ".join(f"{place} is {id_}" for place, id_ in sorted(resource.imports.items()))
    more = " It may change what is there." if resource.import_changes else ""
    return f"Take in what exists: {told}.{more}"
