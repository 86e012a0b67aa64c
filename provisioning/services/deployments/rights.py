"""Who may cancel or retry a deployment."""

from __future__ import annotations

from django.contrib.auth.models import User

from provisioning.models import Deployment, Membership, Team
from provisioning.services.people import NotAllowedError, owns


def may_act_on(user: User, deployment: Deployment) -> bool:
    """Tell whether a person may cancel or retry a deployment.

    That is the team of its application and, of maintenance of a resource or a pool, its owners; and
    staff.
    """
    if not user.is_active:
        return False
    if user.is_staff:
        return True
    if deployment.application is not None:
        team = deployment.application.team_id
        return Membership.objects.filter(team=team, user=user).exists()
    owner = _owner(deployment)
    return owner is not None and owns(user, owner)


def require_right(actor: User, deployment: Deployment, action: str) -> None:
    """Raise NotAllowedError unless the actor may; `action` completes "may not …"."""
    if may_act_on(actor, deployment):
        return
    owner = _owner(deployment)
    if deployment.application is not None:
        others = f"the members of the team {deployment.application.team.name} and "
    else:
        others = f"the owners of the team {owner.name} and " if owner else ""
    raise NotAllowedError(
        f"{actor.get_username()} may not {action} deployment {deployment.pk}: that is for {others}"
        "platform engineers (staff users)."
    )


def _owner(deployment: Deployment) -> Team | None:
    """Return the team that owns what a maintenance is about."""
    maintained = deployment.resource or deployment.pool
    return maintained.owner_team if maintained else None
