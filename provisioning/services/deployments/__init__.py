"""Deployments: how they are submitted, started, stopped, retried and finished."""

from __future__ import annotations

from provisioning.services.deployments.cancel import NotCancellableError, cancel_deployment
from provisioning.services.deployments.retry import NotRetryableError, retry_deployment
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
    "NotCancellableError",
    "NotConfirmableError",
    "NotRetryableError",
    "cancel_deployment",
    "confirm_deployment",
    "plan_deployment",
    "plan_teardown",
    "retry_deployment",
    "submit_deployment",
    "submit_teardown",
    "wishes_not_met",
]
