"""Let other organisations find a resource by criteria, or end that."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db import transaction

from provisioning.exceptions import ConductorError
from provisioning.models import Resource, Scope
from provisioning.models.resources import LIVE_RESOURCE_STATES
from provisioning.planning.maintenance import short_name
from provisioning.services.audit import record
from provisioning.services.locks import lock_environment
from provisioning.services.people import require_staff


class PublishingError(ConductorError):
    """Say why a resource cannot be published."""


def publish_resource(*, resource: Resource, published: bool, actor: User) -> Resource:
    """Publish a resource across organisations, or take that back; who uses it already stays.

    Its owners decide about each application of another organisation as its policy says. Raises
    NotAllowedError unless the actor is staff; PublishingError if nobody could find it by criteria,
    or if it is gone.
    """
    require_staff(actor, "publish a resource across organisations")
    with transaction.atomic():
        lock_environment(resource.environment, Scope.GLOBAL)
        resource = Resource.objects.select_for_update(no_key=True).get(pk=resource.pk)
        name = short_name(resource.key)
        if resource.state not in LIVE_RESOURCE_STATES:
            raise PublishingError(f"{name} has been deleted.")
        if published and not resource.match_slot:
            raise PublishingError(
                f"{name} cannot be published: nobody finds it by criteria. Only what was made for an "
                "alias with `sharing` or `matching` can be."
            )
        resource.published = published
        resource.save(update_fields=["published", "updated_at"])
        record(
            actor=actor,
            action="resource.published" if published else "resource.unpublished",
            subject_type="resource",
            subject_id=resource.pk,
            subject=resource.key,
        )
    return resource
