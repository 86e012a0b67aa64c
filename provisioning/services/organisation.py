"""Makes organisations, teams, applications and environments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from django.contrib.auth.models import User
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Model

from provisioning.drivers.terraform.backends import check_backend
from provisioning.encryption import canonical_json
from provisioning.exceptions import ConductorError
from provisioning.models import (
    Application,
    Environment,
    EnvironmentKind,
    Membership,
    Organisation,
    Role,
    Team,
)
from provisioning.services.audit import record
from provisioning.services.people import NotAllowedError, require_staff

Row = TypeVar("Row", bound=Model)


class InvalidError(ConductorError):
    """Say what is wrong with each field of what should have been made."""


def create_organisation(*, name: str, actor: User) -> Organisation:
    """Create an organisation; raise InvalidError, or NotAllowedError unless the actor is staff."""
    require_staff(actor, "create an organisation")
    return _save(Organisation(name=name), actor)


def create_team(
    *,
    organisation: Organisation,
    name: str,
    owners: Sequence[User] = (),
    members: Sequence[User] = (),
    actor: User,
) -> Team:
    """Create a team with its people; who is given as both is an owner.

    Raise InvalidError, or NotAllowedError unless the actor is staff.
    """
    require_staff(actor, "create a team")
    roles = dict.fromkeys(members, Role.MEMBER) | dict.fromkeys(owners, Role.OWNER)
    with transaction.atomic():
        people = ", ".join(f"{user.username} ({role})" for user, role in roles.items())
        team = _save(Team(organisation=organisation, name=name), actor, reason=people)
        Membership.objects.bulk_create(
            Membership(team=team, user=user, role=role) for user, role in roles.items()
        )
    return team


def create_application(*, team: Team, name: str, actor: User) -> Application:
    """Create an application of a team; its members and staff may."""
    if not (actor.is_staff or team.memberships.filter(user=actor).exists()):
        raise NotAllowedError(
            f"{actor.username} may not create an application of the team {team.name}: "
            "that is for its members."
        )
    return _save(Application(organisation=team.organisation, team=team, name=name), actor)


def create_environment(
    *,
    organisation: Organisation,
    name: str,
    kind: str = EnvironmentKind.DEVELOPMENT,
    variables: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    defaults: Mapping[str, Mapping[str, Any]] | None = None,
    queue: str = "default",
    protected: bool = False,
    state_backend: Mapping[str, Any] | None = None,
    actor: User,
) -> Environment:
    """Create an environment; raise InvalidError, or NotAllowedError unless the actor is staff."""
    require_staff(actor, "create an environment")
    environment = Environment(
        organisation=organisation,
        name=name,
        kind=kind,
        variables=dict(variables or {}),
        tags=dict(tags or {}),
        defaults={} if defaults is None else defaults,
        queue=queue,
        protected=protected,
    )
    if state_backend is not None:
        environment.state_backend = state_backend
    return _save(environment, actor)


def change_state_backend(
    *, environment: Environment, backend: Mapping[str, Any], actor: User
) -> Environment:
    """Say where the states of an environment's new resources are kept; others stay where they are.

    Raise StateBackendError, or NotAllowedError unless the actor is staff.
    """
    require_staff(actor, "change an environment")
    check_backend(backend)
    with transaction.atomic():
        environment.state_backend = backend
        environment.save(update_fields=["state_backend"])
        record(
            actor=actor,
            action="environment.changed",
            subject_type="environment",
            subject_id=environment.pk,
            subject=environment.name,
            reason=f"state_backend: {canonical_json(backend)}",
        )
    return environment


def _save(row: Row, actor: User, *, reason: str = "") -> Row:
    """Validate and store a row with its audit event."""
    noun = str(row._meta.verbose_name)
    try:
        row.full_clean()
        with transaction.atomic():
            row.save(force_insert=True)
            record(
                actor=actor,
                action=f"{noun}.created",
                subject_type=noun,
                subject_id=row.pk,
                subject=str(row),
                reason=reason,
            )
    except ValidationError as error:
        raise InvalidError(_sentence(noun, row, error)) from error
    except IntegrityError as error:  # somebody else was faster than the validation
        raise InvalidError(f"The {noun} {row} exists already.") from error
    return row


def _sentence(noun: str, row: Model, error: ValidationError) -> str:
    said = []
    for field, errors in error.error_dict.items():
        if any(each.code in ("unique", "unique_together") for each in errors):
            return f"The {noun} {row} exists already."
        place = "" if field == NON_FIELD_ERRORS else f"{field}: "
        said += [f"{place}{message}" for each in errors for message in each.messages]
    return f"The {noun} cannot be created. {' '.join(said)}"
