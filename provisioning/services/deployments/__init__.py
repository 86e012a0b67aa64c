"""Deployments: how they are submitted, started and finished."""

from __future__ import annotations

from provisioning.services.deployments.submit import (
    NotConfirmableError,
    confirm_deployment,
    plan_deployment,
    plan_teardown,
    submit_deployment,
    submit_teardown,
)
from provisioning.services.deployments.wishes import wishes_not_met

__all__ = [
    "NotConfirmableError",
    "confirm_deployment",
    "plan_deployment",
    "plan_teardown",
    "submit_deployment",
    "submit_teardown",
    "wishes_not_met",
]
