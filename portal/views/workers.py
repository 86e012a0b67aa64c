"""The page of workers: where they run, with which tools, and what each is at work on."""

from __future__ import annotations

from typing import Any

from django.db.models import Prefetch
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_POST
from django.views.decorators.vary import vary_on_headers

from portal.views.access import PageRequest, staff_only
from provisioning.models import Step, StepStatus, Worker
from provisioning.services.figures.now import worker_state
from provisioning.services.workers import drain_worker, recent_workers


@require_GET
@vary_on_headers("HX-Request")
@staff_only
def index(request: PageRequest) -> HttpResponse:
    """List the workers; htmx is given the rows alone."""
    name = "_rows.html" if request.htmx else "list.html"
    return render(request, f"portal/workers/{name}", _context())


@require_POST
@staff_only
def drain(request: PageRequest, pk: Any) -> HttpResponse:
    """Let a worker take nothing new (`draining` is yes), or take steps again; htmx is given the rows."""
    worker = get_object_or_404(Worker, pk=pk)
    drain_worker(worker=worker, draining=request.POST.get("draining") == "yes", actor=request.user)
    if request.htmx:
        return render(request, "portal/workers/_rows.html", _context())
    return redirect("portal:workers")


def _context() -> dict[str, Any]:
    runs = Step.objects.filter(status__in=[StepStatus.RUNNING, StepStatus.RECOVERING])
    runs = runs.select_related("resource", "deployment").order_by("pk")
    workers = recent_workers().prefetch_related(Prefetch("steps", runs, to_attr="at_work_on"))
    return {"workers": [{"worker": each, "state": worker_state(each)} for each in workers]}
