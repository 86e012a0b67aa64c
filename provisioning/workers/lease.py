"""Hold a step for as long as its driver runs, on the database's clock."""

from __future__ import annotations

import logging
import threading
import time
from datetime import timedelta

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.models.functions import Now

from provisioning.models import Step, StepStatus

logger = logging.getLogger(__name__)


def lease_time() -> timedelta:
    """Return for how long a worker may be silent before its step is taken from it."""
    return timedelta(seconds=settings.CONDUCTOR_LEASE_SECONDS)


class Lease:
    """Renew a running step's lease from a thread of its own, until it is lost or left.

    Use it as a context manager. `lost` answers at once and asks no database: it is also true when
    the lease could not be renewed in time.
    """

    def __init__(self, step: Step) -> None:
        self._id, self._attempt = step.pk, step.attempt
        self._seconds = lease_time().total_seconds()
        self._valid_until = time.monotonic() + self._seconds
        self._taken = False
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lease-{step.pk}", daemon=True)

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._left.set()
        self._thread.join()

    def lost(self) -> bool:
        """Tell whether the step may be another worker's now."""
        return self._taken or time.monotonic() >= self._valid_until

    def _renew(self) -> None:
        try:
            while not self._taken and not self._left.wait(self._seconds / 3):
                self._renew_once()
        finally:
            connection.close()

    def _renew_once(self) -> None:
        asked = time.monotonic()
        mine = Step.objects.filter(pk=self._id, attempt=self._attempt, status=StepStatus.RUNNING)
        try:
            self._taken = not mine.update(lease_until=Now() + lease_time())
        except DatabaseError:
            logger.exception("The lease of step %s could not be renewed; trying again.", self._id)
            connection.close()
        else:
            self._valid_until = asked + self._seconds
