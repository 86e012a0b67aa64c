from __future__ import annotations

from django.apps import AppConfig


class ProvisioningConfig(AppConfig):
    """Everything that happens to a Score file between its text and its resources."""

    name = "provisioning"
