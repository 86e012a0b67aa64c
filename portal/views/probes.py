"""What a load balancer or an orchestrator asks, without signing in: does it live, is it ready."""

from __future__ import annotations

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from provisioning.services.database import missing_migrations


@never_cache
@require_safe
def healthz(_request: HttpRequest) -> HttpResponse:
    """Say that the process lives; no database is asked."""
    return _answer("It lives.")


@never_cache
@require_safe
def readyz(_request: HttpRequest) -> HttpResponse:
    """Say whether requests can be served: the database is there, and has this version's tables."""
    try:
        missing = missing_migrations()
    except (OperationalError, InterfaceError):
        return _answer("The database cannot be reached.", status=503)
    if missing:
        text = f"The database lacks {missing} migrations: run manage.py migrate."
        return _answer(text, status=503)
    return _answer("It is ready.")


def _answer(sentence: str, status: int = 200) -> HttpResponse:
    return HttpResponse(f"{sentence}\n", status=status, content_type="text/plain; charset=utf-8")
