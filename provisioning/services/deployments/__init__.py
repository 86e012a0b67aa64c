"""Deployments: how they are submitted, started and finished."""

from __future__ import annotations

from provisioning.services.deployments.submit import (
    confirm_deployment,
    plan_deployment,
    plan_teardown,
    submit_deployment,
    submit_teardown,
)

__all__ = [
    "confirm_deployment",
    "plan_deployment",
    "plan_teardown",
    "submit_deployment",
    "submit_teardown",
]
