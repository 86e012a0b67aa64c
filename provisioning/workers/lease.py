"""Hold a step for as long as its driver runs, on the database's clock."""

from __future__ import annotations

import logging
import os
import threading
import time
from datetime import timedelta

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.models.functions import Now

from provisioning.drivers.supervision import LEASE_FILE
from provisioning.models import Step, StepStatus
from provisioning.workers.run import work_folder

logger = logging.getLogger(__name__)


def lease_time() -> timedelta:
    """Return for how long a worker may be silent before its step is taken from it."""
    return timedelta(seconds=settings.CONDUCTOR_LEASE_SECONDS)


class Lease:
    """Renew a running step's lease from a thread of its own, until it is lost or left.

    Use it as a context manager. `lost` answers at once and asks no database: it is also true, and
    stays so, when the lease could not be renewed in time. Each renewal is also told to the supervisor
    of the step's tool, which stops the tool when the lease runs out.
    """

    def __init__(self, step: Step) -> None:
        self._id, self._attempt = step.pk, step.attempt
        self._seconds = lease_time().total_seconds()
        self._valid_until = time.monotonic() + self._seconds
        self._file = work_folder(step) / LEASE_FILE
        self._taken = False
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lease-{step.pk}", daemon=True)

    def __enter__(self) -> Lease:
        self._tell_supervisor()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._left.set()
        self._thread.join()

    def lost(self) -> bool:
        """Tell whether the step may be another worker's now."""
        self._taken = self._taken or time.monotonic() >= self._valid_until
        return self._taken

    def _renew(self) -> None:
        try:
            while not self.lost() and not self._left.wait(self._seconds / 3):
                self._renew_once()
        finally:
            connection.close()

    def _renew_once(self) -> None:
        asked = time.monotonic()
        mine = Step.objects.filter(pk=self._id, attempt=self._attempt, status=StepStatus.RUNNING)
        try:
            taken = not mine.update(lease_until=Now() + lease_time())
        except DatabaseError:
            logger.exception("The lease of step %s could not be renewed; trying again.", self._id)
            connection.close()
        else:
            if taken or self.lost():
                self._taken = True
                return
            self._valid_until = asked + self._seconds
            self._tell_supervisor()

    def _tell_supervisor(self) -> None:
        """Write until when the step is held, always as many bytes, so that a full disk is no reason to stop."""
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._file, os.O_CREAT | os.O_WRONLY, 0o644)
        try:
            os.pwrite(descriptor, f"{self._valid_until:020.3f}\n".encode(), 0)
        finally:
            os.close(descriptor)
