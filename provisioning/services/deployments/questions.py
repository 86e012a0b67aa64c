"""Ask owners what a plan needs to be allowed, and take the questions back.

Everything here runs in a transaction that holds the environment's lock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from django.conf import settings
from django.utils import timezone

from provisioning.models import (
    Approval,
    ApprovalKind,
    ApprovalStatus,
    ConsumerState,
    Deployment,
    DeploymentStatus,
    Resource,
    ResourceConsumer,
    Workload,
)
from provisioning.planning.addresses import spoken
from provisioning.planning.plan import Plan
from provisioning.planning.questions import Question
from provisioning.score import workload as score
from provisioning.services import transitions
from provisioning.services.deployments.consumers import (
    by_place,
    new_consumer,
    withdraw_elsewhere,
)


def ask(
    deployment: Deployment,
    plan: Plan,
    resources: Mapping[str, Resource],
    workloads: Sequence[score.Workload],
    *,
    actor: str = transitions.SYSTEM,
) -> bool:
    """Ask what the plan needs and nobody has allowed yet; tell whether there was anything to ask.

    The deployment is `pending_approval` then, and its consumers of what was asked about are
    `pending`. `resources` are the plan's existing ones, locked, by key.
    """
    allowed = set(
        Approval.objects.filter(deployment=deployment, status=ApprovalStatus.APPROVED).values_list(
            "question_digest", "resource"
        )
    )
    # A resource of the same key that was made since is another one, perhaps of another team.
    missing = [
        question
        for question in plan.questions
        if (question.digest, resources[question.key].pk if question.key else None) not in allowed
    ]
    if not missing:
        return False
    approvals = [_approval(deployment, question, resources, actor) for question in missing]
    transitions.begin(approvals, ApprovalStatus.PENDING, actor=actor, deployment=deployment)
    _write_pending_consumers(deployment, plan, missing, resources, workloads, actor)
    asked = sorted({_subject(question) for question in missing})
    transitions.move(
        deployment,
        DeploymentStatus.PENDING_APPROVAL,
        actor=actor,
        status_reason=f"Waiting for approval: {'; '.join(asked)}.",
    )
    return True


def withdraw_questions(
    deployments: Sequence[Deployment], *, reason: str, actor: str = transitions.SYSTEM
) -> None:
    """Take back what deployments still ask, and their pending consumers, when they end unstarted."""
    consumers = ResourceConsumer.objects.select_for_update(no_key=True, of=("self",))
    approvals = Approval.objects.select_for_update(no_key=True)
    transitions.move_all(
        list(
            consumers.select_related("workload")
            .filter(deployment__in=deployments, state=ConsumerState.PENDING)
            .order_by("pk")
        ),
        ConsumerState.WITHDRAWN,
        actor=actor,
        reason=reason,
        ended_at=timezone.now(),
    )
    transitions.move_all(
        list(
            approvals.filter(deployment__in=deployments, status=ApprovalStatus.PENDING).order_by(
                "pk"
            )
        ),
        ApprovalStatus.WITHDRAWN,
        actor=actor,
        reason=reason,
        comment=reason,
        decided_at=timezone.now(),
    )


def _approval(
    deployment: Deployment,
    question: Question,
    resources: Mapping[str, Resource],
    actor: str,
) -> Approval:
    requester = deployment.requested_by
    resource = resources[question.key] if question.key else None
    application = deployment.application
    assert application is not None  # noqa: S101 - maintenance asks nobody
    return Approval(
        deployment=deployment,
        kind=ApprovalKind(question.kind),
        resource=resource,
        key=resource.key if resource else "",
        team_id=resource.owner_team_id if resource else application.team_id,
        asks=question.to_json(),
        question_digest=question.digest,
        asked_by=requester.get_username() if requester else actor,
        requested_by=requester,
        expires_at=timezone.now() + timedelta(days=settings.CONDUCTOR_APPROVAL_DAYS),
    )


def _write_pending_consumers(
    deployment: Deployment,
    plan: Plan,
    missing: Sequence[Question],
    resources: Mapping[str, Resource],
    workloads: Sequence[score.Workload],
    actor: str,
) -> None:
    """Note who wants to join; they count for nothing, and neither do workloads not there yet."""
    joined = {question.key for question in missing if question.joins}
    bindings = [binding for binding in plan.bindings if binding.key in joined]
    rows = _workload_rows(deployment, workloads, {binding.workload for binding in bindings})
    noted = by_place(
        ResourceConsumer.objects.filter(deployment=deployment, state=ConsumerState.PENDING)
    )
    bound = {
        (each.workload, each.alias): resources[each.key].pk
        for each in plan.bindings
        if each.key in resources
    }
    stale = [place for place, each in noted.items() if bound.get(place) != each.resource_id]
    withdraw_elsewhere([noted.pop(place) for place in stale], actor)
    transitions.begin(
        [
            new_consumer(deployment, each, resources[each.key], rows[each.workload])
            for each in bindings
            if (each.workload, each.alias) not in noted
        ],
        ConsumerState.PENDING,
        actor=actor,
        deployment=deployment,
    )


def _workload_rows(
    deployment: Deployment, workloads: Sequence[score.Workload], names: set[str]
) -> dict[str, Workload]:
    """Return the workloads' rows; one that is not there yet is stored as removed until the start."""
    Workload.objects.bulk_create(
        [
            Workload(
                application=deployment.application,
                environment=deployment.environment,
                name=workload.name,
                removed_at=timezone.now(),
            )
            for workload in workloads
            if workload.name in names
        ],
        ignore_conflicts=True,
    )
    rows = Workload.objects.filter(
        application=deployment.application, environment=deployment.environment, name__in=names
    )
    return {row.name: row for row in rows}


def _subject(question: Question) -> str:
    if question.kind == ApprovalKind.DEPLOYMENT:
        return f"of the deployment itself by another owner of {question.team}, or by staff"
    return f"of {spoken(question.key)} by the team {question.team}"
