"""Say what may become of a resource when nobody uses it: protection, deletion policy, grace."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.db import transaction

from provisioning.exceptions import ConductorError
from provisioning.models import DeletionPolicy, Resource, ResourceState
from provisioning.planning.maintenance import short_name
from provisioning.services.audit import record
from provisioning.services.locks import lock_environment
from provisioning.services.resources.find import require_owner

MOST_GRACE = 31_536_000
"""A year, in seconds."""


class PolicyError(ConductorError):
    """Refuse a policy that a resource cannot have."""


def protect_resource(*, resource: Resource, protected: bool, actor: User) -> Resource:
    """Protect a resource from destruction, or end that; if nobody uses it, its grace begins then.

    Raises NotAllowedError for others than its owners, PolicyError if it is being destroyed.
    """
    action = "protected" if protected else "unprotected"
    return _change(resource, actor, action, protected=protected)


def retain_resource(*, resource: Resource, retain: bool, actor: User) -> Resource:
    """Keep a resource when its last user has left, or let it be destroyed then, after its grace.

    Raises NotAllowedError for others than its owners; PolicyError if it is being destroyed, or was
    adopted and is to be released.
    """
    if resource.adopted and not retain:
        raise PolicyError(
            f"{short_name(resource.key)} was adopted, and Conductor destroys only what it made. Use "
            "resource detach to forget it."
        )
    policy = DeletionPolicy.RETAIN if retain else DeletionPolicy.DELETE
    return _change(resource, actor, "retained" if retain else "released", deletion_policy=policy)


def set_grace(*, resource: Resource, seconds: int | None, actor: User) -> Resource:
    """Say how long a shared resource outlives its last consumer; None: as its template says.

    If nobody uses it, the time begins anew. Raises NotAllowedError for others than its owners,
    PolicyError for a resource that only one application can use or that is being destroyed.
    """
    if not resource.is_shareable:
        raise PolicyError(
            f"{resource.key} is of one application alone, and goes when that leaves it: only shared "
            "resources have a grace period."
        )
    if seconds is not None and not 0 <= seconds <= MOST_GRACE:
        raise PolicyError(f"A grace period has 0 to {MOST_GRACE:,} seconds, not {seconds:,}.")
    said = "as its template says" if seconds is None else f"{seconds} s"
    return _change(resource, actor, "grace", said, grace_seconds=seconds)


def _change(
    resource: Resource, actor: User, action: str, reason: str = "", **fields: Any
) -> Resource:
    with transaction.atomic():
        lock_environment(resource.environment)
        rows = Resource.objects.select_for_update(no_key=True, of=("self",))
        resource = rows.select_related("owner_team").get(pk=resource.pk)
        require_owner(actor, resource, "decide about")
        if resource.state in (ResourceState.DELETING, ResourceState.DELETED):
            raise PolicyError(
                f"{short_name(resource.key)} is {resource.get_state_display().lower()}: it is too "
                "late to decide about it."
            )
        fields["grace_until"] = None  # Where it has one, it begins anew.
        for name, value in fields.items():
            setattr(resource, name, value)
        resource.save(update_fields=[*fields, "updated_at"])
        record(
            actor=actor,
            action=f"resource.{action}",
            subject_type="resource",
            subject_id=resource.pk,
            subject=resource.key,
            reason=reason,
        )
    return resource
