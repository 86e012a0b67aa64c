"""What a worker command says of itself: where it runs, for which queues, with which tools."""

from __future__ import annotations

import logging
import os
import socket
import tomllib
import uuid
from collections.abc import Sequence
from pathlib import Path

from django.conf import settings
from django.db.models.functions import Now

from provisioning.drivers import driver_names, get_driver
from provisioning.drivers.sandbox import find_sandbox
from provisioning.models.audit import DATABASE_LOST
from provisioning.models.workers import Worker
from provisioning.services.audit import record

logger = logging.getLogger(__name__)

EVERY_SECONDS = 5.0

_current: uuid.UUID | None = None


def current_worker_id() -> uuid.UUID | None:
    """Return the id of the worker command that this process belongs to, or None outside of one."""
    return _current


def is_draining() -> bool:
    """Tell whether somebody has asked this process's worker command to take nothing new."""
    return _current is not None and Worker.objects.filter(id=_current, draining=True).exists()


class Heartbeat:
    """Keep the worker command's row: register it, say every few seconds that it lives, end it."""

    def __init__(self, queues: Sequence[str]) -> None:
        self.id = uuid.uuid4()
        sandbox = find_sandbox(Path(settings.CONDUCTOR_WORK_DIR) / "any")
        if weakness := sandbox.weakness():
            logger.warning("%s Install bubblewrap, or see CONDUCTOR_SANDBOX.", weakness)
        self._said = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": _version(),
            "queues": list(queues),
            "tools": installed_tools(),
            "sandbox": str(sandbox),
            "stopped_at": None,
        }

    @property
    def tools(self) -> dict[str, str]:
        """Return the tools of this host, `{tool: version}`."""
        tools: dict[str, str] = self._said["tools"]  # type: ignore[assignment]
        return tools

    @property
    def sandbox(self) -> str:
        """Return in what the tools are shut off on this host."""
        return str(self._said["sandbox"])

    def register(self) -> None:
        """Store the row, and make it the current worker of this process and those it forks."""
        global _current
        self.beat()
        _current = self.id

    def beat(self) -> None:
        """Say that the worker lives; a row that was removed or ended meanwhile is stored again."""
        Worker.objects.update_or_create(id=self.id, defaults={**self._said, "last_seen_at": Now()})

    def tell_outage(self, seconds: float) -> None:
        """Tell the audit trail, which `/metrics` counts, that the database could not be reached."""
        record(
            actor=None,
            action=DATABASE_LOST,
            subject_type="worker",
            subject_id=self.id,
            subject=f"{self._said['host']}:{self._said['pid']}",
            reason=f"It lost the database, and could reach it again {seconds:.0f} s later.",
        )

    def stop(self) -> None:
        """Say that the worker has ended."""
        Worker.objects.filter(id=self.id).update(last_seen_at=Now(), stopped_at=Now())


def installed_tools() -> dict[str, str]:
    """Return the tools that the drivers find on this host, `{tool: version}`."""
    found: dict[str, str] = {}
    for name in driver_names():
        try:
            tool = get_driver(name).tool()
        except Exception:  # another package's driver may fail in any way
            logger.exception("The driver %s cannot be used on this host.", name)
            continue
        if tool is not None and tool[1] is not None:
            found[tool[0]] = tool[1]
    return found


def _version() -> str:
    with (settings.BASE_DIR / "pyproject.toml").open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])
