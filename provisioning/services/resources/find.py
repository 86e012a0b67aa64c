"""Find a resource by what people call it, and say who may decide about it."""

from __future__ import annotations

import uuid
from difflib import get_close_matches

from django.contrib.auth.models import User
from django.db.models import Q, QuerySet

from provisioning.exceptions import ConductorError
from provisioning.models import Environment, Resource, ResourceState
from provisioning.planning.maintenance import short_name
from provisioning.services.people import NotAllowedError, owns


class UnknownResourceError(ConductorError):
    """Say that there is no such resource."""


def find_resource(*, environment: Environment, name: str, actor: User) -> Resource:
    """Return the live resource with this shared name, key, provider's name or id.

    Raises UnknownResourceError naming the likeliest other that the actor may see.
    """
    live = Resource.objects.visible_to(actor).filter(environment=environment)
    live = live.exclude(state=ResourceState.DELETED)
    return _chosen(live, environment, name)


def find_past_resources(*, environment: Environment, name: str, actor: User) -> list[Resource]:
    """Return all resources that ever had this name, key or id, oldest first."""
    seen = Resource.objects.visible_to(actor).filter(environment=environment)
    chosen = _chosen(seen, environment, name)
    if _as_id(name) == chosen.pk:
        return [chosen]
    return list(seen.filter(key=chosen.key).order_by("created_at"))


def require_owner(actor: User, resource: Resource, action: str) -> None:
    """Raise NotAllowedError unless the actor owns the resource; `action` completes "may not …".

    Its owners are the owners of its owning team, and staff.
    """
    team = resource.owner_team
    if not owns(actor, team):
        raise NotAllowedError(
            f"{actor.username} may not {action} {short_name(resource.key)}: that is for the owners of "
            f"the team {team.name} and for platform engineers (staff users)."
        )


def _chosen(rows: QuerySet[Resource], environment: Environment, name: str) -> Resource:
    wanted = Q(key=f"shared/{name}") | Q(key=name) | Q(name=name)
    if (id_ := _as_id(name)) is not None:
        wanted |= Q(pk=id_)
    found = list(rows.filter(wanted).select_related("owner_team", "environment"))
    if not found:
        known = [short_name(key) for key in rows.values_list("key", flat=True).distinct()]
        close = get_close_matches(name, known, n=1)
        hint = f"Did you mean {close[0]}?" if close else ""
        raise UnknownResourceError(
            f"There is no resource {name} in {environment.name}. {hint}".strip()
        )
    best = {f"shared/{name}": 0, name: 1}
    found.sort(key=lambda each: each.created_at, reverse=True)
    return min(found, key=lambda each: best.get(each.key, 2))


def _as_id(name: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(name)
    except ValueError:
        return None
