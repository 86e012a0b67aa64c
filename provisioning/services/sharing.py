"""What owners do with their resources: policies, grants, transfer, revocation."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone

from provisioning.exceptions import ConductorError
from provisioning.models import (
    Application,
    Approval,
    ApprovalStatus,
    ConsumerState,
    Grant,
    Resource,
    ResourceConsumer,
    ResourceDependency,
    SharingPolicy,
    Team,
)
from provisioning.models.resources import LIVE_RESOURCE_STATES
from provisioning.services import transitions
from provisioning.services.audit import record
from provisioning.services.locks import lock_environment
from provisioning.services.people import NotAllowedError, owns
from provisioning.services.resources.parts import (
    hand_parts_over,
    parts_of,
    revoke_parts,
    uses_of_parts,
)
from provisioning.services.resources.taking_back import take_back


class SharingError(ConductorError):
    """Say what cannot be granted, handed over or revoked."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """What a consumer loses: names of outputs, and its application's resources that use them.

    `own` names those outputs that were given to it alone, and are made invalid; `known` the sensitive
    ones that all users have alike, and that stay valid until they are changed. `others` are further
    aliases of the application on the same resource, which keep it; `returns` says why the next
    deployment would join again without asking, or is empty; `parts` are the keys of what belongs to
    the resource.
    """

    application: str
    workload: str
    alias: str
    resource: str
    outputs: tuple[str, ...]
    own: tuple[str, ...]
    known: tuple[str, ...]
    dependents: tuple[str, ...]
    others: tuple[str, ...]
    returns: str
    parts: tuple[str, ...]


def set_policy(*, resource: Resource, policy: str, actor: User) -> Resource:
    """Decide whether other teams may use a resource; those that use it already stay.

    Raises SharingError or NotAllowedError.
    """
    if policy not in SharingPolicy.values:
        raise SharingError(f"{policy} is no policy. There are {', '.join(SharingPolicy.values)}.")
    with transaction.atomic():
        resource = _owned(resource, actor, "set its sharing policy")
        old, resource.sharing_policy = resource.sharing_policy, policy
        resource.save(update_fields=["sharing_policy", "updated_at"])
        _note(actor, "resource.shared", resource, f"Policy {policy}, was {old}.")
    return resource


def grant(
    *,
    resource: Resource,
    actor: User,
    application: Application | None = None,
    team: Team | None = None,
) -> Grant:
    """Allow an application, or all of a team, to use a resource without being asked about.

    Raises SharingError or NotAllowedError.
    """
    with transaction.atomic():
        resource = _owned(resource, actor, "grant it")
        _check_receiver(resource, application, team)
        found, made = Grant.objects.get_or_create(
            resource=resource,
            application=application,
            team=team,
            defaults={"granted_by": actor.get_username()},
        )
        if made:
            _note(actor, "resource.granted", resource, f"To {_receiver(application, team)}.")
    return found


def end_grant(
    *,
    resource: Resource,
    actor: User,
    application: Application | None = None,
    team: Team | None = None,
) -> None:
    """Take a grant back; who uses the resource already stays until it is revoked.

    Raises SharingError if there is no such grant, or NotAllowedError.
    """
    with transaction.atomic():
        resource = _owned(resource, actor, "take a grant back")
        gone, _ = Grant.objects.filter(
            resource=resource, application=application, team=team
        ).delete()
        if not gone:
            raise SharingError(f"{resource.key} was not granted to {_receiver(application, team)}.")
        _note(actor, "resource.ungranted", resource, f"To {_receiver(application, team)}.")


def transfer(*, resource: Resource, team: Team, actor: User) -> Resource:
    """Hand a resource with its parts over to another team of the organisation; its consumers stay.

    What is asked about it is asked of the new owners. Raises SharingError or NotAllowedError.
    """
    with transaction.atomic():
        resource = _owned(resource, actor, "hand it over")
        if team.organisation_id != resource.environment.organisation_id:
            raise SharingError(
                f"The team {team} belongs to another organisation than the resource."
            )
        if team.pk == resource.owner_team_id:
            raise SharingError(f"{resource.key} belongs to the team {team} already.")
        old, resource.owner_team = resource.owner_team, team
        resource.save(update_fields=["owner_team", "updated_at"])
        Approval.objects.filter(resource=resource, status=ApprovalStatus.PENDING).update(team=team)
        hand_parts_over(resource, team)
        _note(actor, "resource.transferred", resource, f"From the team {old} to the team {team}.")
    return resource


def plan_revocation(consumer: ResourceConsumer) -> Revocation:
    """Tell what revoking a consumer would take from it; write nothing."""
    resource, workload = consumer.resource, consumer.workload
    shared = set(resource.outputs.values_list("key", flat=True))
    secret = set(resource.outputs.filter(sensitive=True).values_list("key", flat=True))
    own = set(consumer.own_outputs.values_list("key", flat=True))
    return Revocation(
        application=workload.application.name,
        workload=workload.name,
        alias=consumer.alias,
        resource=resource.key,
        outputs=tuple(sorted(shared | own)),
        own=tuple(sorted(own)),
        known=tuple(sorted(secret - own)),
        dependents=tuple(edge.source.key for edge in _edges_of(consumer)),
        others=tuple(f"{each.workload.name}.{each.alias}" for each in _others(consumer)),
        returns=_why_it_returns(resource, workload.application),
        parts=tuple(each.resource.key for each in uses_of_parts(consumer)),
    )


def revoke(*, consumer: ResourceConsumer, reason: str, actor: User) -> Revocation:
    """Put a consumer out of a resource and its parts; return what it lost.

    It gets no outputs any more, nor do its application's resources that use them; what was given to
    these alone is taken back by a maintenance deployment. A grant to the application ends, so that
    its next deployment asks again. Raises SharingError or NotAllowedError.
    """
    reason = reason.strip()
    if not reason:
        raise SharingError("A revocation needs a reason that tells the consumer why.")
    with transaction.atomic():
        resource = _owned(consumer.resource, actor, "revoke the use of it")
        consumer = (
            ResourceConsumer.objects.select_for_update(no_key=True, of=("self",))
            .select_related("workload__application", "resource")
            .get(pk=consumer.pk)
        )
        if consumer.state != ConsumerState.ACTIVE:
            raise SharingError(
                f"{consumer.workload.name}.{consumer.alias} is {consumer.state} and uses "
                f"{resource.key} no more."
            )
        application = consumer.workload.application
        lost = plan_revocation(consumer)
        for edge in _edges_of(consumer):
            edge.delete()
        transitions.move(
            consumer,
            ConsumerState.REVOKED,
            actor=actor.get_username(),
            reason=reason,
            ended_at=timezone.now(),
        )
        revoke_parts(consumer, actor=actor.get_username(), reason=reason)
        if not lost.others:
            Grant.objects.filter(resource=resource, application=application).delete()
        _note(
            actor,
            "resource.revoked",
            resource,
            f"From {application}/{lost.workload}.{lost.alias}: {reason}",
        )
        for each in (resource, *parts_of(resource)):
            take_back(resource=each, actor=actor.get_username(), reason=f"Revoked: {reason}")
    return lost


def _owned(resource: Resource, actor: User, action: str) -> Resource:
    """Lock a live resource that the actor decides about; `action` completes "may not …"."""
    lock_environment(resource.environment)
    locked = (
        Resource.objects.select_for_update(no_key=True, of=("self",))
        .select_related("environment", "owner_team")
        .get(pk=resource.pk)
    )
    if locked.state not in LIVE_RESOURCE_STATES:
        raise SharingError(f"{locked.key} has been deleted.")
    if not owns(actor, locked.owner_team):
        raise NotAllowedError(
            f"{actor.get_username()} may not {action}: {locked.key} belongs to the team "
            f"{locked.owner_team}, whose owners and staff decide."
        )
    return locked


def _others(consumer: ResourceConsumer) -> list[ResourceConsumer]:
    """Return the further uses that the same application makes of a resource in its environment."""
    rows = ResourceConsumer.objects.filter(
        resource=consumer.resource,
        state=ConsumerState.ACTIVE,
        workload__application=consumer.workload.application_id,
        workload__environment=consumer.workload.environment_id,
    ).exclude(pk=consumer.pk)
    return list(rows.select_related("workload").order_by("workload__name", "alias"))


def _edges_of(consumer: ResourceConsumer) -> list[ResourceDependency]:
    """Return the dependencies by which its application's own resources follow the consumer's.

    One stays that a workload uses which goes on using the consumer's resource. Those of another
    environment are not meant: the application may use the resource there as well.
    """
    kept = ResourceConsumer.objects.filter(
        resource=OuterRef("source"),
        state=ConsumerState.ACTIVE,
        workload__in=[each.workload_id for each in _others(consumer)],
    )
    edges = ResourceDependency.objects.filter(
        ~Exists(kept),
        target=consumer.resource,
        source__created_by=consumer.workload.application_id,
        source__environment=consumer.workload.environment_id,
        source__state__in=LIVE_RESOURCE_STATES,
    ).exclude(source__in=parts_of(consumer.resource))
    return list(edges.select_related("source").order_by("source__key"))


def _why_it_returns(resource: Resource, application: Application) -> str:
    if resource.owner_team_id == application.team_id:
        return "its team owns the resource"
    if resource.sharing_policy == SharingPolicy.OPEN:
        return "the resource is open to all teams"
    if Grant.objects.filter(resource=resource, team=application.team_id).exists():
        return f"its team {application.team} was granted the resource"
    return ""


def _check_receiver(resource: Resource, application: Application | None, team: Team | None) -> None:
    if (application is None) == (team is None):
        raise SharingError("A grant is to one application or to one team.")
    receiver = application or team
    if receiver and receiver.organisation_id != resource.environment.organisation_id:
        raise SharingError(f"{receiver} belongs to another organisation than the resource.")


def _receiver(application: Application | None, team: Team | None) -> str:
    return f"the application {application}" if application else f"the team {team}"


def _note(actor: User, action: str, resource: Resource, reason: str) -> None:
    record(
        actor=actor,
        action=action,
        subject_type="resource",
        subject_id=resource.pk,
        subject=resource.key,
        reason=reason,
    )
