"""The time that a resource which nobody uses any more is kept for whoever may join."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from provisioning.models import (
    ConsumerState,
    DeletionPolicy,
    Deployment,
    Environment,
    Resource,
    ResourceConsumer,
    ResourceDependency,
    ResourceState,
    Step,
    StepAction,
    StepStatus,
)
from provisioning.models.resources import LIVE_RESOURCE_STATES
from provisioning.models.steps import UNFINISHED_STEP_STATUSES
from provisioning.planning.plan import Plan
from provisioning.services.locks import lock_environment

RETRY = timedelta(hours=1)
"""How long after a destruction that failed, or was blocked or cancelled, the next one is tried."""


def settle_grace(plan: Plan, resources: Mapping[str, Resource]) -> None:
    """End the grace of the locked resources that a plan binds, and begin that of those it leaves."""
    joined = {resources[binding.key] for binding in plan.bindings}
    Resource.objects.filter(pk__in=[each.pk for each in joined if each.grace_until]).update(
        grace_until=None
    )
    left = {resources[release.key] for release in plan.releases} - joined
    if left:
        begin_grace(_not_kept().filter(pk__in=[each.pk for each in left]))


def begin_grace(resources: QuerySet[Resource]) -> None:
    """Let the grace of unused resources begin, unless it has."""
    waiting = resources.filter(grace_until=None).select_related("template_version")
    by_seconds: dict[int, list[UUID]] = defaultdict(list)
    for resource in waiting.defer("template_version__archive"):
        by_seconds[resource.grace].append(resource.pk)
    for seconds, pks in by_seconds.items():
        until = timezone.now() + timedelta(seconds=seconds)
        Resource.objects.filter(pk__in=pks, grace_until=None).update(grace_until=until)


def unused_resources() -> QuerySet[Resource]:
    """Select the live resources that no workload and no other resource uses."""
    consumers = ResourceConsumer.objects.filter(resource=OuterRef("pk"), state=ConsumerState.ACTIVE)
    dependents = ResourceDependency.objects.filter(
        target=OuterRef("pk"), source__state__in=LIVE_RESOURCE_STATES
    )
    return Resource.objects.exclude(
        state__in=[ResourceState.DELETED, ResourceState.DELETING]
    ).filter(~Exists(consumers), ~Exists(dependents))


def list_unused(*, environment: Environment, actor: User) -> list[Resource]:
    """Return the environment's unused resources that the actor may see, longest unused first."""
    seen = Resource.objects.visible_to(actor).filter(environment=environment)
    rows = unused_resources().filter(pk__in=seen.values("pk"))
    return list(rows.select_related("owner_team").order_by("grace_until", "key"))


def why_kept(resource: Resource) -> str:
    """Say what keeps an unused resource."""
    if resource.adopted:
        return "adopted"
    if resource.protected:
        return "protected"
    if resource.deletion_policy == DeletionPolicy.RETAIN:
        return "retained"
    if resource.pool_id is not None:
        return "returned to its pool" if resource.claimed_at else "unclaimed in its pool"
    return "grace period" if resource.is_shareable else "nothing"


def expired_resources() -> QuerySet[Resource]:
    """Select the unused resources whose grace is over, and whose destruction may be tried."""
    steps = Step.objects.filter(resource=OuterRef("pk"))
    unfinished = steps.filter(status__in=UNFINISHED_STEP_STATUSES)
    stopped = steps.filter(
        action=StepAction.DESTROY,
        status__in=[StepStatus.FAILED, StepStatus.BLOCKED, StepStatus.CANCELLED],
        finished_at__gt=timezone.now() - RETRY,
    )
    tried = Deployment.objects.filter(
        resource=OuterRef("pk"), ensures=False, created_at__gt=timezone.now() - RETRY
    )
    return _not_kept().filter(
        ~Exists(unfinished), ~Exists(stopped), ~Exists(tried), grace_until__lte=timezone.now()
    )


def begin_missing_grace() -> None:
    """Let the grace begin of resources that lost what held them in another way than by a plan.

    A consumer is also withdrawn, revoked or broken, and protection ends. What one application alone
    can use has a grace of no time.
    """
    for environment in Environment.objects.filter(
        pk__in=_not_kept().filter(grace_until=None).values("environment")
    ):
        with transaction.atomic():
            lock_environment(environment)
            begin_grace(_not_kept().filter(environment=environment))


def _not_kept() -> QuerySet[Resource]:
    waiting_in_pool = Q(pool__isnull=False, claimed_at=None)
    return (
        unused_resources()
        .filter(protected=False, adopted=False, deletion_policy=DeletionPolicy.DELETE)
        .exclude(waiting_in_pool)
    )
