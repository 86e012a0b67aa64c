"""Follow a deployment on a terminal, and say why it failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from django.utils import timezone

from portal.management.plan_text import Paint, plain
from provisioning.exceptions import ConductorError
from provisioning.models import Deployment, DeploymentStatus, LogChunk, Step, StepStatus, Worker
from provisioning.models.deployments import RETRYABLE_STATUSES, TERMINAL_STATUSES
from provisioning.services.figures.now import SILENCE
from provisioning.snapshot.view import View

LOOK_SECONDS = 0.1
PATIENCE_SECONDS = 5.0
LOG_LINES = 8
NEEDS_SOMEBODY = (DeploymentStatus.PENDING_CONFIRMATION,)

DONE_WORDS = {
    "create": "created",
    "reuse": "ready",
    "update": "updated",
    "recheck": "rechecked",
    "unchanged": "repaired",
    "release": "left",
    "destroy": "destroyed",
}
DOING_WORDS = {"ensure": "provisioning", "destroy": "destroying"}


class StillRunningError(ConductorError):
    """Say that waiting ended before the deployment did."""


class DeploymentFailedError(ConductorError):
    """Say that a deployment ended without success, and why."""


def follow(
    deployment: Deployment,
    show: Callable[[str], object],
    *,
    timeout: float | None = None,
    paint: Paint = plain,
) -> None:
    """Show one line per change until the deployment has ended or needs somebody.

    `deployment` is refreshed. Raise StillRunningError after `timeout` seconds.
    """
    began = time.monotonic()
    seen: dict[int, str] = {}
    told: set[str] = set()
    while True:
        deployment.refresh_from_db(fields=["status", "status_reason", "started_at", "finished_at"])
        for line in _news(deployment, seen, paint):
            show(line)
        if deployment.status in (*TERMINAL_STATUSES, *NEEDS_SOMEBODY):
            return
        waited = time.monotonic() - began
        for line in _remarks(deployment, seen, waited):
            if line not in told:
                told.add(line)
                show(paint(line, "update"))
        if timeout is not None and waited > timeout:
            raise StillRunningError(f"Stopped waiting after {timeout:g} s; {goes_on(deployment)}")
        time.sleep(LOOK_SECONDS)


def goes_on(deployment: Deployment) -> str:
    """Say that a deployment goes on without its watcher, and how to look at it."""
    return (
        f"deployment {deployment.pk} goes on without this command. "
        f"Look at it with: manage.py logs {deployment.pk} --follow"
    )


def outcome(deployment: Deployment) -> str:
    """Say in one line how a deployment ended; raise DeploymentFailedError if not with success."""
    if deployment.status == DeploymentStatus.SUCCEEDED:
        took = ""
        if deployment.started_at and deployment.finished_at:
            took = f" in {(deployment.finished_at - deployment.started_at).total_seconds():.1f} s"
        return f"Deployment {deployment.pk} succeeded{took}."
    if deployment.status in NEEDS_SOMEBODY:
        raise DeploymentFailedError("\n".join(_needs_somebody(deployment)))
    raise DeploymentFailedError("\n".join(_failure(deployment)))


def step_outcome(step: Step) -> str:
    """Say in one line that a step succeeded; raise DeploymentFailedError if it did not."""
    if step.status == StepStatus.SUCCEEDED:
        return f"{step.resource.uid} succeeded."
    if step.status == StepStatus.FAILED:
        raise DeploymentFailedError("\n".join(_failed_step(step)))
    label = StepStatus(step.status).label.lower()
    needed = f" It needs {step.blocked_by}." if step.blocked_by else ""
    raise DeploymentFailedError(f"{step.resource.uid} ended: {label}.{needed}")


def _news(deployment: Deployment, seen: dict[int, str], paint: Paint) -> Iterator[str]:
    planned = {entry["key"]: entry["action"] for entry in deployment.plan.get("resources", [])}
    view = View(deployment.environment)
    for step in deployment.steps.select_related("resource").order_by("finished_at", "position"):
        address = view.address(step.resource.key, step.resource.environment_id)
        before = seen.get(step.pk, StepStatus.PENDING)
        if step.status != before:
            seen[step.pk] = step.status
            yield _step_line(step, planned.get(address, step.action), paint)


def _step_line(step: Step, planned: str, paint: Paint) -> str:
    uid = step.resource.uid
    took = ""
    if step.started_at and step.finished_at:
        took = f" ({(step.finished_at - step.started_at).total_seconds():.1f} s)"
    match step.status:
        case StepStatus.SUCCEEDED:
            word = DONE_WORDS.get(planned, planned) if step.driver_ran else "unchanged"
            return f"{paint('✓', 'create')} {word} {uid}{took}"
        case StepStatus.FAILED:
            return f"{paint('✗', 'destroy')} failed {uid}{took}"
        case StepStatus.BLOCKED:
            return f"{paint('⊘', 'destroy')} blocked {uid} (needs {step.blocked_by})"
        case StepStatus.CANCELLED:
            return f"{paint('⊘', 'destroy')} cancelled {uid}"
        case StepStatus.RECOVERING:
            return f"{paint('↻', 'update')} recovering {uid} (its worker was lost)"
        case StepStatus.PENDING:
            return f"{paint('↻', 'update')} will try again {uid}"
        case _:
            return f"{paint('▸', 'update')} {DOING_WORDS[step.action]} {uid}"


def _remarks(deployment: Deployment, seen: dict[int, str], waited: float) -> Iterator[str]:
    if deployment.status == DeploymentStatus.WAITING:
        yield f"Waiting: {deployment.status_reason}"
    elif deployment.status == DeploymentStatus.CANCELLING:
        yield f"Stopping: {deployment.status_reason}"
    elif deployment.status == DeploymentStatus.PENDING_APPROVAL:
        yield deployment.status_reason
        yield f"They answer with: manage.py approvals list --as OWNER (deployment {deployment.pk})"
    elif deployment.status == DeploymentStatus.RUNNING and deployment.status_reason:
        yield deployment.status_reason
    elif waited > PATIENCE_SECONDS and not seen:
        waiting_for = set(
            deployment.steps.filter(status=StepStatus.PENDING).values_list("queue", flat=True)
        )
        for queue in sorted(waiting_for - live_queues()):
            yield f"No worker takes the queue `{queue}`: start one with `make worker`."


def live_queues() -> set[str]:
    """Return the queues that some worker which was seen lately takes."""
    live = Worker.objects.filter(stopped_at=None, last_seen_at__gt=timezone.now() - SILENCE)
    return {queue for queues in live.values_list("queues", flat=True) for queue in queues}


def _needs_somebody(deployment: Deployment) -> Iterator[str]:
    reason = deployment.status_reason or "The plan changed since it was shown."
    yield f"Deployment {deployment.pk} waits for your confirmation. {reason}"
    yield f"Agree to the new plan with: manage.py confirm {deployment.pk}"


def _failure(deployment: Deployment) -> Iterator[str]:
    label = DeploymentStatus(deployment.status).label.lower()
    steps = list(deployment.steps.select_related("resource").order_by("position"))
    told_by_steps = deployment.status == DeploymentStatus.FAILED and any(
        step.status == StepStatus.FAILED for step in steps
    )
    reason = "" if told_by_steps else deployment.status_reason
    yield f"Deployment {deployment.pk} ended: {label}. {reason}".rstrip()
    for step in steps:
        if step.status == StepStatus.FAILED:
            yield ""
            yield from _failed_step(step)
    blocked = [step.resource.uid for step in steps if step.status == StepStatus.BLOCKED]
    if blocked:
        yield ""
        yield f"Not done, because it was blocked: {', '.join(blocked)}."
    if deployment.rollback and told_by_steps:
        yield ""
        yield deployment.status_reason.splitlines()[-1]
    if deployment.status == DeploymentStatus.FAILED:
        yield ""
        yield "Mend the cause and deploy again: what has succeeded is not done twice."
        yield f"The whole log: manage.py logs {deployment.pk}"
    if deployment.status in RETRYABLE_STATUSES:
        yield f"The same once more: manage.py retry {deployment.pk}"


def _failed_step(step: Step) -> Iterator[str]:
    yield f"{step.resource.uid} failed:"
    for line in step.error.splitlines() or ["The driver gave no reason."]:
        yield f"  {line}"
    lines = log_tail(step, LOG_LINES)
    if lines:
        yield "  The last lines of its log:"
        yield from (f"  │ {line}" for line in lines)


def log_tail(step: Step, count: int) -> list[str]:
    """Return the last lines of a step's log."""
    newest = LogChunk.objects.filter(step=step).order_by("-attempt", "-sequence")[:count]
    text = "".join(
        chunk.text if chunk.text.endswith("\n") else f"{chunk.text}\n" for chunk in reversed(newest)
    )
    return text.splitlines()[-count:]
