"""Who acts: the people a command, a page or a request may act as."""

from __future__ import annotations

from difflib import get_close_matches

from django.contrib.auth.models import User

from provisioning.exceptions import ConductorError
from provisioning.models import Membership, Role, Team

SYSTEM_USERNAME = "conductor"


class UnknownUserError(ConductorError):
    """Say that there is no such user."""


class NotAllowedError(ConductorError):
    """Say what this person may not do, and who may."""


def system_user() -> User:
    """Return the staff user that commands act as, made without a password if it is missing."""
    user, created = User.objects.get_or_create(
        username=SYSTEM_USERNAME, defaults={"is_staff": True, "password": "!"}
    )
    if created:
        user.set_unusable_password()
        user.save(update_fields=["password"])
    return user


def user_named(name: str) -> User:
    """Return an active user; raise UnknownUserError naming the likeliest other."""
    user = User.objects.filter(username=name, is_active=True).first()
    if user is not None:
        return user
    known = User.objects.filter(is_active=True).values_list("username", flat=True)
    close = get_close_matches(name, known, n=1)
    hint = f"Did you mean {close[0]}?" if close else "Create one with manage.py createsuperuser."
    raise UnknownUserError(f"There is no active user {name}. {hint}")


def owns(user: User, team: Team) -> bool:
    """Tell whether a person decides about a team's resources: its owners and staff do."""
    return user.is_active and (
        user.is_staff or Membership.objects.filter(team=team, user=user, role=Role.OWNER).exists()
    )


def require_staff(actor: User, action: str) -> None:
    """Raise NotAllowedError unless the actor is staff; `action` completes "may not …"."""
    if not (actor.is_active and actor.is_staff):
        raise NotAllowedError(
            f"{actor.username} may not {action}: that is for platform engineers (staff users)."
        )
