"""How an expected failure becomes an answer."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rest_framework import status
from rest_framework.response import Response
from rest_framework.views import exception_handler

from provisioning.exceptions import ConductorError
from provisioning.planning.plan import PlanError
from provisioning.score.workload import ScoreError
from provisioning.services.people import NotAllowedError


def answer(error: Exception, context: dict[str, Any]) -> Response | None:
    """Answer 400 with every problem of a refused file or plan, 403 and 409 for other refusals."""
    if isinstance(error, ScoreError | PlanError):
        problems = [asdict(problem) for problem in error.problems]
        return Response({"problems": problems}, status=status.HTTP_400_BAD_REQUEST)
    if isinstance(error, NotAllowedError):
        return Response({"detail": str(error)}, status=status.HTTP_403_FORBIDDEN)
    if isinstance(error, ConductorError):
        return Response({"detail": str(error)}, status=status.HTTP_409_CONFLICT)
    return exception_handler(error, context)
