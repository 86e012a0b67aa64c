"""What must end before a deployment can start."""

from __future__ import annotations

from django.db.models import Q

from provisioning.models import (
    Deployment,
    DeploymentStatus,
    MaintenanceMode,
    Scope,
    Step,
    StepAction,
)
from provisioning.models.deployments import STARTED_STATUSES
from provisioning.models.steps import UNFINISHED_STEP_STATUSES
from provisioning.planning.addresses import environment_of, spoken
from provisioning.snapshot.view import View


def blocker_of(deployment: Deployment, touched: frozenset[str], joined: set[str]) -> str:
    """Say what must end first, or return "".

    There may be no maintenance, here or where anything is touched. Nobody else, of whatever
    environment, may have unfinished work on what is touched, nor wait for it since earlier; and what
    is joined may not be under destruction.
    """
    view = View(deployment.environment)
    if maintenance := _maintenance(touched, view):
        return maintenance
    others = Deployment.objects.exclude(pk=deployment.pk)
    of_mine = others.filter(
        environment=deployment.environment,
        application__isnull=False,
        application=deployment.application,
    )
    running = of_mine.filter(status__in=STARTED_STATUSES).first()
    if running:
        return f"Waiting for deployment {running.pk} of the same application and environment."
    return _working(deployment, touched, joined, view) or _asked_first(deployment, touched, view)


def _maintenance(touched: frozenset[str], view: View) -> str:
    """Say why nothing may begin here, or in an environment with resources that are touched."""
    paths = {environment_of(key) for key in touched} - {""}
    elsewhere = [view.pks[path] for path in sorted(paths) if path in view.pks]
    modes = MaintenanceMode.objects.of(view.environment, *elsewhere)
    mode = modes.select_related("environment").first()
    if mode is None:
        return ""
    here = mode.environment in (None, view.environment)
    return str(mode) if here else mode.seen_elsewhere


def _working(deployment: Deployment, touched: frozenset[str], joined: set[str], view: View) -> str:
    """Say who has unfinished work on these resources, or return ""."""
    paths = {environment_of(key) for key in touched | joined} - {""}
    environments = [view.environment.pk, *(view.pks.get(path) for path in sorted(paths))]
    unfinished = (
        Step.objects.filter(
            resource__environment__in=environments, status__in=UNFINISHED_STEP_STATUSES
        )
        .exclude(deployment=deployment)
        .order_by("deployment_id", "position")
        .values_list("resource__key", "resource__environment", "action", *_of("deployment__"))
    )
    for key, environment_id, action, *other in unfinished:
        address = view.address(key, environment_id)
        if address in touched:
            return f"Waiting for {_spoken(view, *other)}, which is at work on {spoken(address)}."
        if address in joined and action == StepAction.DESTROY:
            return f"Waiting for {_spoken(view, *other)}, which destroys {spoken(address)}."
    return ""


def _asked_first(deployment: Deployment, touched: frozenset[str], view: View) -> str:
    """Say who has waited longer for any of these resources, or return ""."""
    earlier = Deployment.objects.filter(pk__lt=deployment.pk, status=DeploymentStatus.WAITING)
    if deployment.scope == Scope.ENVIRONMENT:
        here = Q(environment=deployment.environment)
        earlier = earlier.filter(here | ~Q(scope=Scope.ENVIRONMENT))
    rows = earlier.order_by("pk").values_list("plan", "environment", *_of(""))
    for plan, environment_id, *other in rows:
        if common := touched.intersection(
            view.seen(address, environment_id) for address in plan["touched"]
        ):
            asked = f"{_spoken(view, *other)}, which asked first for {spoken(min(common))}"
            return f"Waiting for {asked}."
    return ""


def _of(deployment: str) -> tuple[str, str, str]:
    """Return the fields of a deployment that `_spoken` takes, given the way to it."""
    return f"{deployment}pk", f"{deployment}application__name", f"{deployment}environment"


def _spoken(view: View, pk: int, application: str | None, environment_id: int) -> str:
    name = view.application(application, environment_id) if application else ""
    return f"deployment {pk} of {name}" if name else f"deployment {pk}"
