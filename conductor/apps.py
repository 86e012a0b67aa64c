from __future__ import annotations

import gc
from typing import Any

from django.apps import AppConfig
from django.core import checks

from conductor import environment

CHOSEN_BY_OPERATORS = ("CONDUCTOR_DRIVER_ENV_", "CONDUCTOR_SECRET_")
"""What follows one of these is a name of the operator's own choice, for drivers and params."""


class ConductorConfig(AppConfig):
    """The project itself: settings, the embedded database and its command."""

    name = "conductor"

    def ready(self) -> None:
        # Reading and planning make many objects and few cycles: a quarter of their time would go
        # into looking for cycles at Python's own threshold of 700 objects.
        gc.set_threshold(100_000, 20, 20)
        checks.register(check_environment, "environment")


def check_environment(**_: Any) -> list[checks.CheckMessage]:
    """Warn of CONDUCTOR_* variables that nothing reads, which are mostly misspelt."""
    return [
        checks.Warning(
            f"The environment variable {name} is not a setting of Conductor.",
            hint=f"Did you mean {likely}?" if likely else "See docs/operations.md for all of them.",
            id="conductor.W001",
        )
        for name, likely in environment.unknown("CONDUCTOR_")
        if not name.startswith(CHOSEN_BY_OPERATORS)
    ]
