"""The page of approvals: what a person's teams are asked or ask, and the answer."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_POST

from portal.views.access import PageRequest, signed_in
from provisioning.exceptions import ConductorError
from provisioning.models import Approval, ApprovalStatus
from provisioning.services.approvals import approve, may_decide, reject, withdraw

ANSWERED = 25


@require_GET
@signed_in
def index(request: PageRequest) -> HttpResponse:
    """List what is asked, oldest first, and below it what was answered lately."""
    return render(request, "portal/approvals/list.html", _context(request))


@require_POST
@signed_in
def decide(request: PageRequest, pk: int) -> HttpResponse:
    """Take an answer (`decision` is approve, reject or withdraw); htmx is given the lists alone."""
    approval = get_object_or_404(_visible(request), pk=pk)
    comment = request.POST.get("comment", "").replace("\0", "")
    problem = ""
    try:
        match request.POST.get("decision"):
            case "approve":
                approve(approval=approval, actor=request.user, comment=comment)
            case "reject":
                reject(approval=approval, actor=request.user, comment=comment)
            case "withdraw":
                withdraw(approval=approval, actor=request.user)
            case _:
                problem = "Choose approve, reject or withdraw."
    except ConductorError as error:
        problem = str(error)
    if not problem and not request.htmx:
        return redirect("portal:approvals")
    name = "_lists.html" if request.htmx else "list.html"
    context = {**_context(request), "problem": problem}
    # htmx shows only good answers, so a refusal is told in one.
    status = 409 if problem and not request.htmx else 200
    return render(request, f"portal/approvals/{name}", context, status=status)


def _visible(request: PageRequest) -> Any:
    rows = Approval.objects.visible_to(request.user)
    return rows.select_related("team", "deployment__environment", "deployment__application")


def _context(request: PageRequest) -> dict[str, Any]:
    rows = _visible(request)
    pending = list(rows.filter(status=ApprovalStatus.PENDING).order_by("pk"))
    return {
        "pending": [
            {
                "approval": row,
                "decides": may_decide(request.user, row),
                "withdraws": row.requested_by_id == request.user.pk,
            }
            for row in pending
        ],
        "answered": rows.exclude(status=ApprovalStatus.PENDING).order_by("-pk")[:ANSWERED],
    }
