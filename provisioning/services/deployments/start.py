"""Start a deployment: write what its plan wants, and the steps that bring it about.

Everything here, but `start_elsewhere`, runs in a transaction that holds the environment's lock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from operator import attrgetter

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from provisioning.exceptions import ConductorError
from provisioning.models import (
    Deployment,
    DeploymentKind,
    DeploymentStatus,
    Environment,
    Resource,
    Scope,
    Step,
    StepStatus,
    Workload,
)
from provisioning.planning.plan import Plan
from provisioning.queue import doorbell
from provisioning.score import workload as score
from provisioning.services import transitions
from provisioning.services.deployments.blocking import blocker_of
from provisioning.services.deployments.desired import write_desired
from provisioning.services.deployments.questions import ask, withdraw_questions
from provisioning.services.deployments.requests import Request
from provisioning.services.deployments.wishes import tell_joiners
from provisioning.services.locks import lock_environment
from provisioning.services.resources.breaking import break_references
from provisioning.services.resources.grace import settle_grace

MOST_DOORBELLS = 8


def store_plan(deployment: Deployment, plan: Plan) -> None:
    """Put a plan into a deployment's fields; the caller saves them."""
    deployment.plan = plan.to_json()
    deployment.plan_digest = plan.digest
    deployment.scope = plan.scope
    deployment.workload_names = list(plan.workloads)


def start(
    deployment: Deployment,
    plan: Plan,
    resources: Mapping[str, Resource],
    workloads: Sequence[score.Workload],
    *,
    actor: str = transitions.SYSTEM,
) -> None:
    """Start a waiting deployment, or tell in `status_reason` why it goes on waiting.

    `resources` are the plan's existing resources, locked, by key; `workloads` those to be there.
    """
    joined = {planned.key for planned in plan.resources}
    blocker = blocker_of(deployment, plan.touched, joined)
    if blocker:
        _tell_blocker(deployment, blocker)
        return
    carry_out(deployment, plan, resources, workloads, actor=actor)


def carry_out(
    deployment: Deployment,
    plan: Plan,
    resources: Mapping[str, Resource],
    workloads: Sequence[score.Workload],
    *,
    actor: str = transitions.SYSTEM,
) -> None:
    """Start a waiting deployment that nothing blocks; see `start`. Its time begins to run."""
    transitions.move(
        deployment,
        DeploymentStatus.RUNNING,
        actor=actor,
        status_reason="",
        started_at=timezone.now(),
        deadline=Now() + timedelta(seconds=allowed_seconds(deployment)),
    )
    rows = _write_workloads(deployment, workloads)
    by_key = write_desired(deployment, plan, resources, rows, actor=actor)
    break_references(deployment, plan, by_key, actor)
    settle_grace(plan, by_key)
    _write_steps(deployment, plan, by_key, actor)
    tell_joiners(deployment, plan, by_key)
    if not plan.steps:
        succeed(deployment)


def _tell_blocker(deployment: Deployment, blocker: str) -> None:
    if deployment.status_reason != blocker:
        deployment.status_reason = blocker
        deployment.save(update_fields=["status_reason"])


def allowed_seconds(deployment: Deployment) -> int:
    """Return how long a deployment may run."""
    return deployment.timeout_seconds or int(settings.CONDUCTOR_DEPLOYMENT_TIMEOUT_SECONDS)


def succeed(deployment: Deployment) -> None:
    """End a deployment whose steps, if it had any, have all succeeded."""
    reason = ""
    if deployment.status == DeploymentStatus.CANCELLING:
        reason = f"{deployment.status_reason}\nBy then everything had been done."
    transitions.move(
        deployment,
        DeploymentStatus.SUCCEEDED,
        status_reason=reason,
        finished_at=timezone.now(),
    )
    if deployment.kind == DeploymentKind.TEARDOWN:
        Workload.objects.filter(
            application=deployment.application,
            environment=deployment.environment,
            name__in=deployment.workload_names,
            removed_at=None,
        ).update(removed_at=timezone.now())


def start_waiting(environment: Environment) -> None:
    """Start the waiting deployments of an environment that nothing blocks, oldest first.

    The others tell what blocks them now.
    """
    waiting = (
        Deployment.objects.select_for_update(no_key=True)
        .filter(environment=environment, status=DeploymentStatus.WAITING)
        .order_by("pk")
    )
    for deployment in waiting:
        if blocker := _blocker(deployment):
            _tell_blocker(deployment, blocker)
        else:
            replan(deployment)


def start_elsewhere(deployment: Deployment) -> None:
    """Start what waits in other environments and may have waited for a deployment.

    Each environment is locked by itself, so this must not be called with another one locked.
    """
    organisation = deployment.environment.organisation_id
    concerned = Q(scope=Scope.ORGANISATION, environment__organisation=organisation)
    concerned |= Q(scope=Scope.GLOBAL)
    if deployment.scope != Scope.ENVIRONMENT:
        worked_on = Step.objects.filter(deployment=deployment).values("resource__environment")
        concerned |= Q(environment__in=worked_on)
    waiting = Deployment.objects.filter(concerned, status=DeploymentStatus.WAITING)
    waiting = waiting.exclude(environment=deployment.environment_id).select_related("environment")
    free = {each.environment for each in waiting.order_by("pk") if not _blocker(each)}
    for environment in sorted(free, key=attrgetter("pk")):
        with transaction.atomic():
            lock_environment(environment)
            start_waiting(environment)


def replan(deployment: Deployment) -> None:
    """Plan a waiting deployment again, and start it if the plan is still the one it shows.

    Otherwise it shows the new plan and asks for confirmation; if it cannot be planned any more, it
    fails.
    """
    application = deployment.application
    try:
        request = Request.of(deployment)
        plan, resources = request.plan_on_locked(application, deployment.environment)
    except ConductorError as error:
        transitions.move(
            deployment,
            DeploymentStatus.FAILED,
            reason="It could not be planned any more.",
            status_reason=str(error),
            finished_at=timezone.now(),
        )
        withdraw_questions([deployment], reason="The deployment could not be planned any more.")
        return
    if plan.digest == deployment.plan_digest:
        if not ask(deployment, plan, resources, request.workloads):
            start(deployment, plan, resources, request.workloads)
        return
    reason = "The plan has changed since it was shown: look at it again and confirm it."
    store_plan(deployment, plan)
    deployment.save(update_fields=["plan", "plan_digest", "scope", "workload_names"])
    transitions.move(
        deployment, DeploymentStatus.PENDING_CONFIRMATION, reason=reason, status_reason=reason
    )


def _blocker(deployment: Deployment) -> str:
    """Say what is in the way of a deployment as it was planned last, or return ""."""
    touched = frozenset(deployment.plan["touched"])
    return blocker_of(
        deployment, touched, {resource["key"] for resource in deployment.plan["resources"]}
    )


def _write_workloads(
    deployment: Deployment, workloads: Sequence[score.Workload]
) -> dict[str, Workload]:
    """Store the workloads as their files describe them; return all of the application by name."""
    Workload.objects.bulk_create(
        [
            Workload(
                application=deployment.application,
                environment=deployment.environment,
                name=workload.name,
                metadata=dict(workload.metadata),
                ports=dict(workload.service.get("ports") or {}),
            )
            for workload in workloads
        ],
        update_conflicts=True,
        unique_fields=["application", "environment", "name"],
        update_fields=["metadata", "ports", "removed_at"],
    )
    rows = Workload.objects.filter(
        application=deployment.application, environment=deployment.environment
    )
    return {row.name: row for row in rows}


def _write_steps(
    deployment: Deployment, plan: Plan, resources: Mapping[str, Resource], actor: str
) -> None:
    queues = _queues(resources.values(), deployment.environment)
    steps = [
        Step(
            deployment=deployment,
            resource=resources[planned.key],
            action=planned.action,
            position=position,
            queue=queues[resources[planned.key].environment_id],
        )
        for position, planned in enumerate(plan.steps)
    ]
    transitions.begin(steps, StepStatus.PENDING, actor=actor)
    by_key = {planned.key: step for planned, step in zip(plan.steps, steps, strict=True)}
    link = Step.needs.through
    link.objects.bulk_create(
        link(from_step_id=by_key[planned.key].pk, to_step_id=by_key[need].pk)
        for planned in plan.steps
        for need in planned.needs
    )
    ready = Counter(
        step.queue for planned, step in zip(plan.steps, steps, strict=True) if not planned.needs
    )
    for queue in sorted(ready):
        doorbell.ring_many(queue, min(ready[queue], MOST_DOORBELLS))


def _queues(resources: Iterable[Resource], here: Environment) -> dict[int, str]:
    """Return the queue of each resource's environment, by its primary key."""
    others = {resource.environment_id for resource in resources} - {here.pk}
    queues = {here.pk: here.queue}
    if others:
        rows = Environment.objects.filter(pk__in=others).order_by("pk")
        queues |= dict(rows.values_list("pk", "queue"))
    return queues
