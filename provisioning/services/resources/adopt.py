"""Take an existing thing in as a resource, or let one go, without any driver."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone
from semantic_version import Version

from provisioning import snapshot
from provisioning.drivers.base import ANY_OUTPUT
from provisioning.encryption import mac
from provisioning.exceptions import ConductorError
from provisioning.models import (
    DeletionPolicy,
    Deployment,
    Environment,
    Resource,
    ResourceDependency,
    ResourceState,
    ResourceTemplate,
    ResourceTemplateVersion,
    Team,
    VersionState,
)
from provisioning.models.resources import LIVE_RESOURCE_STATES
from provisioning.models.steps import UNFINISHED_STEP_STATUSES
from provisioning.planning.desired import spec_digest
from provisioning.planning.maintenance import HeldResourceError, consumer_names, short_name
from provisioning.planning.naming import resource_name
from provisioning.services import transitions
from provisioning.services.audit import record
from provisioning.services.locks import lock_environment
from provisioning.services.outputs import forget_outputs, store_outputs
from provisioning.services.people import require_staff
from provisioning.services.resources.breaking import break_uses
from provisioning.services.resources.destroy import require_reason
from provisioning.services.resources.find import require_owner

SHARED_NAME, MOST_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?"), 63
"""As the Score extension's schema says of `reference.name`."""


class AdoptionError(ConductorError):
    """Refuse to take in an existing thing, saying what does not fit."""


def adopt_resource(
    *,
    environment: Environment,
    name: str,
    type_: str,
    class_: str = "default",
    template: ResourceTemplate,
    team: Team,
    outputs: Mapping[str, Any],
    version: str = "",
    params: Mapping[str, Any] | None = None,
    actor: User,
) -> Resource:
    """Store an existing thing as the shared resource `name`, with these outputs, owned by a team.

    The named version of its template, or the newest, says which outputs it has and which are
    sensitive. No driver ever runs on it, and its policy is `retain`. Raises AdoptionError for a name that is taken, a template
    of another type or outputs that do not fit; NotAllowedError unless the actor is staff.
    """
    require_staff(actor, "adopt a resource")
    chosen = version_of(template, type_, class_, version)
    _check_outputs(chosen, outputs)
    resource = new_shared(environment, name, type_, class_, chosen, team, params or {}, {})
    resource.adopted = True
    resource.applied_spec_digest = resource.spec_digest
    resource.applied_mac = mac({"adopted": resource.key})
    with transaction.atomic():
        lock_environment(environment)
        if live_resource(environment, resource.key) is not None:
            raise AdoptionError(f"{environment.name} has a shared resource {name} already.")
        transitions.begin([resource], ResourceState.PROVISIONING, actor=actor.get_username())
        sensitive = {each["name"] for each in chosen.outputs if each.get("sensitive")}
        store_outputs(resource, outputs, sensitive)
        transitions.move(
            resource,
            ResourceState.ACTIVE,
            actor=actor.get_username(),
            reason="It was adopted: it existed before.",
        )
        _record(resource, actor, "adopted", f"By template {template.name} {chosen.version}.")
    return resource


def version_of(
    template: ResourceTemplate, type_: str, class_: str, version: str = ""
) -> ResourceTemplateVersion:
    """Return the named active version of a template for a type, or its newest one.

    Raises AdoptionError.
    """
    active = template.versions.filter(state=VersionState.ACTIVE).defer("archive")
    chosen = [each for each in active if version in ("", each.version)]
    newest = max(chosen, key=lambda each: Version(each.version), default=None)
    if newest is None:
        raise AdoptionError(
            f"The template {template.name} has no active version{f' {version}' if version else ''}."
        )
    if template.type != type_:
        raise AdoptionError(
            f"The template {template.name} is for {template.type}, and {type_}.{class_} is to be "
            "adopted."
        )
    return newest


def new_shared(
    environment: Environment,
    name: str,
    type_: str,
    class_: str,
    version: ResourceTemplateVersion,
    team: Team,
    params: Mapping[str, Any],
    context: Mapping[str, Any],
) -> Resource:
    """Make the shared resource `name`, to be stored by the caller; its policy is `retain`.

    Raises AdoptionError for a name that no Score file could refer to.
    """
    if not SHARED_NAME.fullmatch(name) or len(name) > MOST_NAME:
        raise AdoptionError(
            f"{name!r} is not a name that a Score file could refer to: use a-z, 0-9, '-' and '.', up "
            f"to {MOST_NAME} characters, and begin and end with a letter or a digit."
        )
    key, facts = f"shared/{name}", snapshot.version_facts(version)
    organisation = environment.organisation.name
    real_name = resource_name(organisation, environment.name, key, type_, facts.naming)
    return Resource(
        environment=environment,
        owner_team=team,
        key=key,
        name=real_name,
        uid=f"{type_}.{class_}#{short_name(key)}",
        type=type_,
        class_name=class_,
        template_version=version,
        params=dict(params),
        context=dict(context),
        spec_digest=spec_digest(facts, real_name, params, context),
        deletion_policy=DeletionPolicy.RETAIN,
    )


def live_resource(environment: Environment, key: str) -> Resource | None:
    """Return the live resource with a key, locked; the caller holds the environment's lock."""
    live = Resource.objects.filter(environment=environment, key=key, state__in=LIVE_RESOURCE_STATES)
    return live.select_for_update(no_key=True).first()


def detach_resource(
    *, resource: Resource, actor: User, force: bool = False, reason: str = ""
) -> Resource:
    """Forget a resource and its outputs without destroying anything.

    Raises HeldResourceError while anybody uses it or works on it; with `force`, which needs a
    `reason`, its consumers become `broken` and its dependents forget it, but not while a deployment
    works on it. Raises NotAllowedError for others than its owners.
    """
    require_reason(force, reason)
    with transaction.atomic():
        lock_environment(resource.environment)
        rows = Resource.objects.select_for_update(no_key=True, of=("self",))
        resource = rows.select_related("environment", "owner_team").get(pk=resource.pk)
        require_owner(actor, resource, "detach")
        _check_detachable(resource, force)
        by = actor.get_username()
        why = reason.strip() or "It was detached."
        break_uses(resource, actor=by, reason=why)
        forget_outputs(resource)
        ResourceDependency.objects.filter(source=resource).delete()
        transitions.move(resource, ResourceState.DELETING, actor=by, reason=why)
        transitions.move(
            resource,
            ResourceState.DELETED,
            actor=by,
            reason="Conductor forgets it; the thing itself stays.",
            deleted_at=timezone.now(),
            applied_mac="",
        )
        _record(resource, actor, "detach_forced" if force else "detached", reason.strip())
    return resource


def _check_outputs(version: ResourceTemplateVersion, outputs: Mapping[str, Any]) -> None:
    declared = {each["name"] for each in version.outputs}
    missing = sorted(declared - outputs.keys() - {ANY_OUTPUT})
    unknown = [] if ANY_OUTPUT in declared else sorted(outputs.keys() - declared)
    if missing or unknown:
        said = [f"{', '.join(missing)} missing"] if missing else []
        said += [f"{', '.join(unknown)} not declared"] if unknown else []
        raise AdoptionError(
            f"The outputs are not those of the template {version.template.name} {version.version}: "
            f"{'; '.join(said)}."
        )


def _check_detachable(resource: Resource, force: bool) -> None:
    name = short_name(resource.key)
    if resource.state in (ResourceState.DELETING, ResourceState.DELETED):
        state = resource.get_state_display().lower()
        raise HeldResourceError(f"Cannot detach {name}: it is {state}.")
    working = Deployment.objects.filter(
        steps__resource=resource, steps__status__in=UNFINISHED_STEP_STATUSES
    ).first()
    if working:
        raise HeldResourceError(
            f"Cannot detach {name}: deployment {working.pk} is at work on it. Wait for its end."
        )
    if force:
        return
    facts = snapshot.take_environment(resource.environment)
    users = consumer_names(facts.consumers, resource.key)
    needing = resource.dependents.filter(source__state__in=LIVE_RESOURCE_STATES)
    needing_keys = needing.order_by("source__key").values_list("source__key", flat=True)
    users += [short_name(key) for key in needing_keys]
    if users:
        raise HeldResourceError(
            f"Cannot detach {name}, referenced by: {', '.join(users)}\n"
            "Use --force --reason TEXT to detach it anyway (will break what references it)."
        )
    if resource.protected:
        raise HeldResourceError(
            f"Cannot detach {name}: it is protected. Use resource unprotect first."
        )


def _record(resource: Resource, actor: User, action: str, reason: str) -> None:
    record(
        actor=actor,
        action=f"resource.{action}",
        subject_type="resource",
        subject_id=resource.pk,
        subject=resource.key,
        reason=reason,
    )
