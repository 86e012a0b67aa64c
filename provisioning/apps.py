from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core import checks


class ProvisioningConfig(AppConfig):
    """Everything that happens to a Score file between its text and its resources."""

    name = "provisioning"

    def ready(self) -> None:
        checks.register(check_schedules, checks.Tags.database)


def check_schedules(databases: Sequence[str] | None = None, **_: Any) -> list[checks.CheckMessage]:
    """Warn of scheduled work that is not done as it must be; `check --database default` asks."""
    # They need the models, which are not there yet when this file is read.
    from provisioning.queue.schedules import schedule_states
    from provisioning.services.database import missing_migrations

    if not databases or missing_migrations():
        return []
    return [
        checks.Warning(
            state.problem, hint="A running worker puts it right.", id="provisioning.W001"
        )
        for state in schedule_states()
        if state.problem
    ]
