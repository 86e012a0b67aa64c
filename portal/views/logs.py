"""The log of a deployment: at the end of its page, of one step, and as a file."""

from __future__ import annotations

from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from portal.log_file import log_file
from portal.views.access import PageRequest, signed_in
from provisioning.models import Deployment, Step
from provisioning.models.deployments import TERMINAL_STATUSES
from provisioning.models.steps import UNFINISHED_STEP_STATUSES
from provisioning.services.logs.reading import read_tail

CHUNKS_SHOWN = 200
CHARACTERS_SHOWN = 200_000


@require_GET
@vary_on_headers("HX-Request")
@signed_in
def step(request: PageRequest, pk: int, step_pk: int) -> HttpResponse:
    """Show a step and its log; htmx is given the step's status alone."""
    deployment = get_object_or_404(Deployment.objects.visible_to(request.user), pk=pk)
    found = get_object_or_404(deployment.steps.select_related("resource"), pk=step_pk)
    ended = found.status not in UNFINISHED_STEP_STATUSES
    context = {"deployment": deployment, "step": found, "ended": ended}
    if request.htmx:
        return render(request, "portal/deployments/_step.html", context)
    context["log"] = log_pane(request, deployment, found)
    return render(request, "portal/deployments/log.html", context)


@require_GET
@signed_in
def pane(request: PageRequest, pk: int) -> HttpResponse:
    """Return the end of the log, unless it still is where it was `seen`."""
    deployment, chosen = _chosen(request, pk)
    log = log_pane(request, deployment, chosen)
    if log["cursor"] == request.GET.get("seen"):
        return HttpResponse(status=204)
    return render(request, "portal/deployments/_log.html", {"log": log})


@require_GET
@signed_in
def download(request: PageRequest, pk: int) -> StreamingHttpResponse:
    """Return the whole log as a text file."""
    deployment, chosen = _chosen(request, pk)
    return log_file(request, deployment.pk, step_id=chosen.pk if chosen else None)


def log_pane(
    request: PageRequest, deployment: Deployment, step: Step | None = None
) -> dict[str, Any]:
    """Return what `_log.html` shows: the end of the log, and where to hear how it goes on."""
    tail = read_tail(
        deployment.pk,
        step_id=step.pk if step else None,
        chunks=CHUNKS_SHOWN,
        characters=CHARACTERS_SHOWN,
    )
    ended = step is not None and step.status not in UNFINISHED_STEP_STATUSES
    query = f"?step={step.pk}" if step else ""
    urls = {
        name: reverse(f"portal:deployment-log{name}", args=[deployment.pk]) + query
        for name in ("", "-pane", "-events")
    }
    return {
        "entries": tail.entries,
        "shortened": tail.shortened,
        "cursor": str(tail.cursor),
        "goes_on": not ended and deployment.status not in TERMINAL_STATUSES,
        "file": urls[""],
        "pane": urls["-pane"],
        # A server that speaks WSGI only would hold a thread per stream: there, pages ask.
        "events": urls["-events"] if isinstance(request, ASGIRequest) else "",
    }


def _chosen(request: PageRequest, pk: int) -> tuple[Deployment, Step | None]:
    """Return the deployment, and its step if the query names one."""
    deployment = get_object_or_404(Deployment.objects.visible_to(request.user), pk=pk)
    number = request.GET.get("step", "")
    if not number:
        return deployment, None
    if not number.isdecimal():
        raise Http404
    return deployment, get_object_or_404(deployment.steps, pk=int(number))
