"""Take a request: plan it, store it, and start it at once if nothing is in its way."""

from __future__ import annotations

import json
from collections.abc import Sequence

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from provisioning.encryption import encrypt
from provisioning.exceptions import ConductorError
from provisioning.models import (
    Application,
    Deployment,
    DeploymentKind,
    DeploymentStatus,
    Environment,
)
from provisioning.models.deployments import NOT_STARTED_STATUSES
from provisioning.planning.plan import Plan
from provisioning.score.document import parse_application
from provisioning.services import transitions
from provisioning.services.deployments.priority import NORMAL, require_priority
from provisioning.services.deployments.questions import ask, withdraw_questions
from provisioning.services.deployments.requests import Request
from provisioning.services.deployments.start import (
    replan,
    start,
    start_elsewhere,
    start_waiting,
    store_plan,
)
from provisioning.services.locks import lock_environment

Files = Sequence[tuple[str, str]]
"""Score texts: (file, text) pairs."""


class NotConfirmableError(ConductorError):
    """Refuse to confirm a deployment that does not ask for it."""


def plan_deployment(
    *,
    application: Application,
    environment: Environment,
    files: Files,
    upgrade: bool = False,
    shrink: bool = False,
) -> Plan:
    """Tell what deploying these Score files would do; write nothing.

    Raises ScoreError or PlanError with every problem.
    """
    request = Request(workloads=parse_application(files), upgrade=upgrade, shrink=shrink)
    return request.plan(application, environment)


def plan_teardown(
    *, application: Application, environment: Environment, workloads: Sequence[str] | None = None
) -> Plan:
    """Tell what removing these workloads (None: all of the application) would do; write nothing."""
    request = Request(names=None if workloads is None else tuple(workloads), teardown=True)
    return request.plan(application, environment)


def submit_deployment(
    *,
    application: Application,
    environment: Environment,
    files: Files,
    actor: User | None,
    commit: str = "",
    upgrade: bool = False,
    shrink: bool = False,
    priority: int = NORMAL,
    rollback: bool = False,
    timeout_seconds: int | None = None,
) -> Deployment:
    """Store a deployment of these Score files, and start it if nothing is in its way.

    It is `running`, `succeeded` (there was nothing to do), `waiting` (`status_reason` names the
    blocker) or `pending_approval` (it names who was asked) afterwards. With `rollback`, what it
    creates is destroyed again if it does not succeed. Raises ScoreError or PlanError with every
    problem, or NotAllowedError for a priority; nothing is stored then.
    """
    request = Request(workloads=parse_application(files), upgrade=upgrade, shrink=shrink)
    deployment = Deployment(
        kind=DeploymentKind.DEPLOY,
        application=application,
        environment=environment,
        score=encrypt(json.dumps([list(file) for file in files])),
        upgrade=upgrade,
        shrink=shrink,
        rollback=rollback,
        timeout_seconds=timeout_seconds,
        commit=commit,
        priority=priority,
        requested_by=actor,
    )
    return submit_request(deployment=deployment, request=request, actor=actor)


def submit_teardown(
    *,
    application: Application,
    environment: Environment,
    workloads: Sequence[str] | None,
    actor: User | None,
    commit: str = "",
    priority: int = NORMAL,
    timeout_seconds: int | None = None,
) -> Deployment:
    """Store the removal of these workloads (None: all of the application); see `submit_deployment`."""
    names = None if workloads is None else tuple(workloads)
    deployment = Deployment(
        kind=DeploymentKind.TEARDOWN,
        application=application,
        environment=environment,
        timeout_seconds=timeout_seconds,
        commit=commit,
        priority=priority,
        requested_by=actor,
    )
    request = Request(names=names, teardown=True)
    return submit_request(deployment=deployment, request=request, actor=actor)


def confirm_deployment(*, deployment: Deployment, actor: User | None) -> Deployment:
    """Agree to the changed plan that a deployment shows, and let it go on.

    If the plan has changed once more, the deployment shows the newest and asks again. Raises
    NotConfirmableError if it does not ask.
    """
    with transaction.atomic():
        lock_environment(deployment.environment, deployment.scope)
        deployment = Deployment.objects.select_for_update(no_key=True).get(pk=deployment.pk)
        if deployment.status != DeploymentStatus.PENDING_CONFIRMATION:
            raise NotConfirmableError(
                f"Deployment {deployment.pk} is {deployment.get_status_display().lower()} and asks "
                "for no confirmation."
            )
        transitions.move(
            deployment,
            DeploymentStatus.WAITING,
            actor=_name(actor),
            reason="The changed plan was confirmed.",
            status_reason="",
        )
        replan(deployment)
    deployment.refresh_from_db()
    return deployment


def submit_request(*, deployment: Deployment, request: Request, actor: User | None) -> Deployment:
    """Plan and store a new deployment that asks for this; see `submit_deployment`."""
    require_priority(actor, deployment.application, deployment.priority)
    with transaction.atomic():
        lock_environment(deployment.environment, request.scope)
        superseded = submit_on_locked(deployment, request, actor)
    for older in superseded:
        start_elsewhere(older)
    return deployment


def submit_on_locked(
    deployment: Deployment, request: Request, actor: User | None
) -> list[Deployment]:
    """Do the same in a transaction that holds the environment in the request's scope.

    Returns what it has superseded: who waits elsewhere may have waited for that.
    """
    superseded = _supersede(deployment, actor)
    if superseded:
        start_waiting(deployment.environment)
    plan, resources = request.plan_on_locked(deployment.application, deployment.environment)
    store_plan(deployment, plan)
    transitions.begin(
        [deployment], DeploymentStatus.WAITING, actor=_name(actor), reason=deployment.reason
    )
    if not ask(deployment, plan, resources, request.workloads, actor=_name(actor)):
        start(deployment, plan, resources, request.workloads, actor=_name(actor))
    return superseded


def _supersede(newer: Deployment, actor: User | None) -> list[Deployment]:
    """Let the newer deployment take the place of those that have not started; return these."""
    if newer.kind == DeploymentKind.MAINTENANCE:
        return []
    older = list(
        Deployment.objects.select_for_update(no_key=True)
        .filter(
            application=newer.application,
            environment=newer.environment,
            status__in=NOT_STARTED_STATUSES,
        )
        .order_by("pk")
    )
    if not older:
        return []
    reason = "A newer deployment of the same application and environment took its place."
    transitions.move_all(
        older,
        DeploymentStatus.SUPERSEDED,
        actor=_name(actor),
        reason=reason,
        status_reason=reason,
        finished_at=timezone.now(),
    )
    withdraw_questions(older, reason=reason, actor=_name(actor))
    return older


def _name(actor: User | None) -> str:
    return actor.get_username() if actor else transitions.SYSTEM
