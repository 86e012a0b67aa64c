"""Begin and end maintenance: workers end what they run, and begin nothing new until it is over."""

from __future__ import annotations

from django.contrib.auth.models import AnonymousUser, User
from django.db import IntegrityError, transaction
from django.db.models import F, Q, QuerySet

from provisioning.exceptions import ConductorError
from provisioning.models import (
    Deployment,
    DeploymentStatus,
    Environment,
    MaintenanceMode,
    Step,
    StepStatus,
)
from provisioning.queue import doorbell
from provisioning.services.audit import record
from provisioning.services.deployments.start import start_waiting
from provisioning.services.locks import lock_environment
from provisioning.services.people import require_staff


class MaintenanceError(ConductorError):
    """Say that maintenance is on already, or not on."""


def begin_maintenance(
    *, environment: Environment | None, reason: str, actor: User
) -> MaintenanceMode:
    """Let nothing new begin in an environment, or anywhere (None), until `end_maintenance`.

    What can be submitted, planned and approved before, still can; it then waits, and says why. Raises
    MaintenanceError if it is on there already, NotAllowedError for others than staff.
    """
    require_staff(actor, "begin maintenance")
    mode = MaintenanceMode(
        environment=environment, reason=reason.strip(), begun_by=actor.get_username()
    )
    try:
        with transaction.atomic():
            mode.save(force_insert=True)
            _record("begun", mode, actor)
    except IntegrityError as error:
        raise MaintenanceError(f"Maintenance is on already {_where(environment)}.") from error
    for each in _affected(environment):
        _settle(each)
    return mode


def end_maintenance(*, environment: Environment | None, actor: User) -> None:
    """Let work go on in an environment, or everywhere (None) but in those with a mode of their own.

    Raises MaintenanceError if maintenance is not on there, NotAllowedError for others than staff.
    """
    require_staff(actor, "end maintenance")
    with transaction.atomic():
        rows = MaintenanceMode.objects.select_for_update().filter(environment=environment)
        mode = rows.first()
        if mode is None:
            raise MaintenanceError(f"Maintenance is not on {_where(environment)}.")
        _record("ended", mode, actor)
        mode.delete()
    for each in _affected(environment):
        _settle(each, ended=str(mode))
    for each in Environment.objects.filter(pk__in=_waiting_for(mode)).order_by("pk"):
        _settle(each)


def list_maintenance(*, actor: User | AnonymousUser) -> list[MaintenanceMode]:
    """Return where maintenance is on, everywhere first; for others than staff, where they deploy."""
    modes = MaintenanceMode.objects.select_related("environment__organisation")
    if not actor.is_authenticated:
        return []
    if not actor.is_staff:
        theirs = Q(environment__organisation__teams__memberships__user=actor)
        modes = modes.filter(Q(environment=None) | theirs).distinct()
    return list(modes.order_by(F("environment__name").asc(nulls_first=True), "pk"))


def _affected(environment: Environment | None) -> list[Environment]:
    everywhere = Environment.objects.select_related("organisation").order_by("pk")
    return [environment] if environment is not None else list(everywhere)


def _waiting_for(mode: MaintenanceMode) -> QuerySet[Deployment, int]:
    """Select the environments from which deployments wait for the end of it in another one."""
    waiting = Deployment.objects.filter(status=DeploymentStatus.WAITING)
    return waiting.filter(status_reason=mode.seen_elsewhere).values_list("environment", flat=True)


def _settle(environment: Environment, ended: str = "") -> None:
    """Tell the unfinished deployments of an environment what holds them, or let them go on.

    Each environment has a transaction of its own: nobody may hold the locks of several.
    """
    with transaction.atomic():
        lock_environment(environment)
        running = Deployment.objects.filter(
            environment=environment, status=DeploymentStatus.RUNNING
        )
        if ended:
            running.filter(status_reason=ended).update(status_reason="")
        mode = MaintenanceMode.objects.of(environment).first()
        if mode is not None:
            held = Step.objects.filter(status=StepStatus.PENDING, deployment__in=running)
            running.filter(status_reason="", pk__in=held.values("deployment")).update(
                status_reason=str(mode)
            )
        start_waiting(environment)
        if mode is None:
            _ring(Step.objects.filter(resource__environment=environment))


def _ring(steps: QuerySet[Step]) -> None:
    pending = steps.filter(status=StepStatus.PENDING).order_by("queue")
    for queue in pending.values_list("queue", flat=True).distinct():
        doorbell.ring(queue)


def _where(environment: Environment | None) -> str:
    return f"in {environment.name}" if environment else "everywhere"


def _record(action: str, mode: MaintenanceMode, actor: User) -> None:
    record(
        actor=actor,
        action=f"maintenance.{action}",
        subject_type="maintenance",
        subject_id=mode.environment_id or "",
        subject=str(mode.environment or "everywhere"),
        reason=mode.reason,
    )
