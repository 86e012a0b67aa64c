"""The pages of deployments: the list, one of them, and the parts that renew themselves."""

from __future__ import annotations

import hashlib
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Prefetch, QuerySet
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.views.decorators.http import require_GET, require_POST
from django.views.decorators.vary import vary_on_headers

from portal.views.access import PageRequest, signed_in
from portal.views.logs import log_pane
from provisioning.exceptions import ConductorError
from provisioning.models import (
    Application,
    ConsumerState,
    Deployment,
    DeploymentStatus,
    Environment,
    Resource,
    ResourceConsumer,
    ResourceOutput,
    ResourceState,
    Step,
)
from provisioning.models.deployments import (
    NOT_STARTED_STATUSES,
    RETRYABLE_STATUSES,
    TERMINAL_STATUSES,
)
from provisioning.planning.addresses import environment_of
from provisioning.services.deployments import (
    NotConfirmableError,
    confirm_deployment,
    wishes_not_met,
)
from provisioning.services.deployments.cancel import cancel_deployment
from provisioning.services.deployments.retry import newer_than, retry_deployment, retry_of
from provisioning.services.deployments.rights import may_act_on
from provisioning.snapshot.view import View

PAGE_SIZE = 25


@require_GET
@vary_on_headers("HX-Request")
@signed_in
def index(request: PageRequest) -> HttpResponse:
    """List deployments, newest first; htmx is given the rows alone."""
    rows = _visible(request).order_by("-pk")
    chosen = {
        name: request.GET.get(name, "").replace("\0", "")  # which PostgreSQL would refuse
        for name in ("application", "environment", "status")
    }
    if chosen["application"]:
        rows = rows.filter(application__name=chosen["application"])
    if chosen["environment"]:
        rows = rows.filter(environment__name=chosen["environment"])
    if chosen["status"]:
        rows = rows.filter(status=chosen["status"])
    page = Paginator(rows, PAGE_SIZE).get_page(request.GET.get("page"))
    query = request.GET.copy()
    query.pop("page", None)
    context: dict[str, Any] = {"page": page, "chosen": chosen, "query": query.urlencode()}
    # Going back in the browser's history, htmx asks for the whole page.
    if request.htmx and not request.htmx.history_restore_request:
        return render(request, "portal/deployments/_rows.html", context)
    context |= _choices(request)
    return render(request, "portal/deployments/list.html", context)


@require_GET
@signed_in
def detail(request: PageRequest, pk: int) -> HttpResponse:
    """Show one deployment: its plan, its steps, and what it has brought about."""
    deployment = get_object_or_404(_visible(request), pk=pk)
    context = {
        "deployment": deployment,
        "plan": _plan(deployment),
        "live": _live(request, deployment)[0],
        "log": log_pane(request, deployment),
    }
    return render(request, "portal/deployments/detail.html", context)


@require_GET
@signed_in
def status(request: PageRequest, pk: int) -> HttpResponse:
    """Return the part of the page that changes, unless it still is as it was `seen`."""
    deployment = get_object_or_404(_visible(request), pk=pk)
    html, digest = _live(request, deployment)
    if digest == request.GET.get("seen"):
        return HttpResponse(status=204)
    return HttpResponse(html)


@require_POST
@signed_in
def confirm(request: PageRequest, pk: int) -> HttpResponse:
    """Agree to the changed plan that a deployment shows."""
    deployment = get_object_or_404(_visible(request), pk=pk)
    try:
        confirm_deployment(deployment=deployment, actor=request.user)
    except NotConfirmableError as error:
        messages.error(request, str(error))
    return redirect("portal:deployment", pk=pk)


@require_POST
@signed_in
def cancel(request: PageRequest, pk: int) -> HttpResponse:
    """Cancel a deployment; htmx is given the live part."""
    deployment = get_object_or_404(_visible(request), pk=pk)
    problem = ""
    try:
        cancel_deployment(deployment=deployment, actor=request.user)
    except ConductorError as error:
        problem = str(error)
        deployment.refresh_from_db()
    if request.htmx:
        return HttpResponse(_live(request, deployment, problem)[0])
    if problem:
        messages.error(request, problem)
    return redirect("portal:deployment", pk=pk)


@require_POST
@signed_in
def retry(request: PageRequest, pk: int) -> HttpResponse:
    """Retry a deployment, and go to the new one."""
    deployment = get_object_or_404(_visible(request), pk=pk)
    try:
        again = retry_deployment(deployment=deployment, actor=request.user)
    except ConductorError as error:
        messages.error(request, str(error))
        return redirect("portal:deployment", pk=pk)
    return redirect("portal:deployment", pk=again.pk)


def _visible(request: PageRequest) -> QuerySet[Deployment]:
    rows = Deployment.objects.visible_to(request.user)
    return rows.select_related("application", "environment", "requested_by")


def _choices(request: PageRequest) -> dict[str, Any]:
    applications = Application.objects.visible_to(request.user)
    environments = Environment.objects.filter(organisation__in=applications.values("organisation"))
    return {
        "applications": applications.order_by("name").values_list("name", flat=True).distinct(),
        "environments": environments.order_by("name").values_list("name", flat=True).distinct(),
        "statuses": DeploymentStatus.choices,
    }


def _plan(deployment: Deployment) -> list[dict[str, Any]]:
    """Return the plan's resources with the aliases bound to each, what changes first."""
    aliases: dict[str, list[str]] = {}
    for binding in deployment.plan.get("bindings", []):
        aliases.setdefault(binding["key"], []).append(f"{binding['workload']}.{binding['alias']}")
    resources = [
        {
            **resource,
            "aliases": aliases.get(resource["key"], []),
            "elsewhere": environment_of(resource["key"]),
        }
        for resource in deployment.plan.get("resources", [])
    ]
    return sorted(resources, key=lambda resource: resource["action"] == "unchanged")


def _live(request: PageRequest, deployment: Deployment, problem: str = "") -> tuple[str, str]:
    """Return the live part and its digest."""
    context = {
        "deployment": deployment,
        "steps": Step.objects.filter(deployment=deployment)
        .select_related("resource", "worker")
        .order_by("position"),
        "wishes_not_met": wishes_not_met(deployment),
        "approvals": deployment.approvals.select_related("team").order_by("pk"),
        "resources": _resources(request, deployment),
    }
    content = render_to_string("portal/deployments/_status.html", context, request)
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    frame = {
        "deployment": deployment,
        "ended": deployment.status in TERMINAL_STATUSES,
        "digest": digest,
        "content": content,
        "problem": problem,
        **_actions(request, deployment),
    }
    return render_to_string("portal/deployments/_live.html", frame, request), digest


def _actions(request: PageRequest, deployment: Deployment) -> dict[str, Any]:
    """Tell what the person may do: cancel what goes on, retry what ended without success."""
    if deployment.status in (*NOT_STARTED_STATUSES, DeploymentStatus.RUNNING):
        return {"cancellable": may_act_on(request.user, deployment)}
    if deployment.status not in RETRYABLE_STATUSES:
        return {}
    again = retry_of(deployment)
    newer = again or newer_than(deployment)
    retryable = newer is None and may_act_on(request.user, deployment)
    return {"retry": again, "retryable": retryable}


def _resources(request: PageRequest, deployment: Deployment) -> QuerySet[Resource]:
    """Return the plan's resources that exist, with their outputs and active consumers."""
    addresses = [resource["key"] for resource in deployment.plan.get("resources", [])]
    consumers = ResourceConsumer.objects.filter(state=ConsumerState.ACTIVE)
    consumers = consumers.select_related("workload__application").order_by("pk")
    return (
        Resource.objects.visible_to(request.user)
        .filter(View(deployment.environment).resources_at(addresses))
        .exclude(state=ResourceState.DELETED)
        .select_related("template_version__template", "owner_team")
        .prefetch_related(
            Prefetch("consumers", consumers, to_attr="active_consumers"),
            Prefetch("outputs", ResourceOutput.objects.order_by("key")),
        )
        .order_by("key")
    )
