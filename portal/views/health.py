"""The page of health: what needs somebody, with the figures that say so, and the scheduled work."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from portal.views.access import PageRequest, staff_only
from provisioning.queue.schedules import schedule_states
from provisioning.services.figures.alerts import alerts
from provisioning.services.figures.now import read_now


@require_GET
@vary_on_headers("HX-Request")
@staff_only
def index(request: PageRequest) -> HttpResponse:
    """Show each rule with its figures; htmx is given the part that renews itself."""
    now = read_now()
    context = {"alerts": alerts(now), "queues": now.queues, "schedules": schedule_states()}
    name = "_figures.html" if request.htmx else "detail.html"
    return render(request, f"portal/health/{name}", context)
