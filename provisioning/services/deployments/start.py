"""Start a deployment: write what its plan wants, and the steps that bring it about.

Everything here runs in a transaction that holds the environment's lock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from django.utils import timezone

from provisioning.exceptions import ConductorError
from provisioning.models import (
    Deployment,
    DeploymentKind,
    DeploymentStatus,
    Environment,
    MaintenanceMode,
    Resource,
    Step,
    StepAction,
    StepStatus,
    Workload,
)
from provisioning.models.deployments import STARTED_STATUSES, UNFINISHED_STEP_STATUSES
from provisioning.planning.plan import Plan
from provisioning.queue import doorbell
from provisioning.score import workload as score
from provisioning.services import transitions
from provisioning.services.deployments.desired import write_desired
from provisioning.services.deployments.questions import ask, withdraw_questions
from provisioning.services.deployments.requests import Request
from provisioning.services.deployments.wishes import tell_joiners
from provisioning.services.resources.breaking import break_references
from provisioning.services.resources.grace import settle_grace

MOST_DOORBELLS = 8


def store_plan(deployment: Deployment, plan: Plan) -> None:
    """Put a plan into a deployment's fields; the caller saves them."""
    deployment.plan = plan.to_json()
    deployment.plan_digest = plan.digest
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
    blocker = _blocker(deployment, plan)
    if blocker:
        _tell_blocker(deployment, blocker)
        return
    transitions.move(
        deployment,
        DeploymentStatus.RUNNING,
        actor=actor,
        status_reason="",
        started_at=timezone.now(),
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


def succeed(deployment: Deployment) -> None:
    """End a deployment whose steps, if it had any, have all succeeded."""
    transitions.move(
        deployment, DeploymentStatus.SUCCEEDED, status_reason="", finished_at=timezone.now()
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
        touched = frozenset(deployment.plan["touched"])
        planned = {resource["key"] for resource in deployment.plan["resources"]}
        if blocker := _blocker_on(deployment, touched, planned):
            _tell_blocker(deployment, blocker)
        else:
            replan(deployment)


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
    deployment.save(update_fields=["plan", "plan_digest", "workload_names"])
    transitions.move(
        deployment, DeploymentStatus.PENDING_CONFIRMATION, reason=reason, status_reason=reason
    )


def _blocker(deployment: Deployment, plan: Plan) -> str:
    return _blocker_on(deployment, plan.touched, {planned.key for planned in plan.resources})


def _blocker_on(deployment: Deployment, touched: frozenset[str], joined: set[str]) -> str:
    """Say what must end first, or return "".

    There may be no maintenance, nobody else may have unfinished work on what is touched, nor wait for
    it since earlier; and what is joined may not be under destruction.
    """
    if mode := MaintenanceMode.objects.of(deployment.environment).first():
        return str(mode)
    others = Deployment.objects.filter(environment=deployment.environment).exclude(pk=deployment.pk)
    of_mine = others.filter(application__isnull=False, application=deployment.application)
    running = of_mine.filter(status__in=STARTED_STATUSES).first()
    if running:
        return f"Waiting for deployment {running.pk} of the same application and environment."
    unfinished = (
        Step.objects.filter(deployment__in=others, status__in=UNFINISHED_STEP_STATUSES)
        .order_by("deployment_id", "position")
        .values_list("deployment_id", "deployment__application__name", "resource__key", "action")
    )
    for other, application, key, action in unfinished:
        if key in touched:
            return f"Waiting for deployment {other}{_of(application)}, which is at work on {key}."
        if key in joined and action == StepAction.DESTROY:
            return f"Waiting for deployment {other}{_of(application)}, which destroys {key}."
    earlier = others.filter(pk__lt=deployment.pk, status=DeploymentStatus.WAITING).order_by("pk")
    for other, application, plan in earlier.values_list("pk", "application__name", "plan"):
        if common := touched.intersection(plan["touched"]):
            return (
                f"Waiting for deployment {other}{_of(application)}, which asked first for "
                f"{min(common)}."
            )
    return ""


def _of(application: str | None) -> str:
    return f" of {application}" if application else ""


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
    queue = deployment.environment.queue
    steps = [
        Step(
            deployment=deployment,
            resource=resources[planned.key],
            action=planned.action,
            position=position,
            queue=queue,
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
    ready = sum(not planned.needs for planned in plan.steps)
    doorbell.ring_many(queue, min(ready, MOST_DOORBELLS))
