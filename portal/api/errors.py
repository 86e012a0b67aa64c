"""How an expected failure becomes an answer."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from rest_framework import status
from rest_framework.response import Response
from rest_framework.views import exception_handler

from provisioning.exceptions import ConductorError
from provisioning.planning.plan import PlanError
from provisioning.score.workload import ScoreError
from provisioning.services.people import NotAllowedError
from provisioning.services.state.versions import UnknownVersionError


def answer(error: Exception, context: dict[str, Any]) -> Response | None:
    """Answer 400 with every problem of a refused file or plan, 403, 404, 409 and 413 for other refusals."""
    if isinstance(error, ScoreError | PlanError):
        problems = [asdict(problem) for problem in error.problems]
        return Response({"problems": problems}, status=status.HTTP_400_BAD_REQUEST)
    if isinstance(error, NotAllowedError):
        return Response({"detail": str(error)}, status=status.HTTP_403_FORBIDDEN)
    if isinstance(error, UnknownVersionError):
        return Response({"detail": str(error)}, status=status.HTTP_404_NOT_FOUND)
    if isinstance(error, ConductorError):
        return Response({"detail": str(error)}, status=status.HTTP_409_CONFLICT)
    if isinstance(error, RequestDataTooBig):
        detail = f"A request has {settings.DATA_UPLOAD_MAX_MEMORY_SIZE:,} bytes at most."
        return Response({"detail": detail}, status=status.HTTP_413_REQUEST_ENTITY_TOO_LARGE)
    return exception_handler(error, context)
