"""Hold a step for as long as its driver runs, on the database's clock, and hear if it must stop."""

from __future__ import annotations

import logging
import os
import threading
import time
from datetime import timedelta

from django.conf import settings
from django.db import Error, connection
from django.db.models.functions import Now

from provisioning.drivers.folders import lease_file
from provisioning.models import DeploymentStatus, Step, StepStatus
from provisioning.workers.run import work_folder

logger = logging.getLogger(__name__)

ASK_SECONDS = 0.4
"""How often a running step asks whether it must stop."""
PATIENT_SECONDS = 2.0
"""How long it waits with the next question to a database that gave no answer."""
REASONS: dict[str, str] = {
    DeploymentStatus.CANCELLED: "cancelled",
    DeploymentStatus.TIMED_OUT: "timed out",
}

_ASK_SQL = """
SELECT deployment.status, deployment.ends_as, deployment.deadline < clock_timestamp()
FROM provisioning_step step
JOIN provisioning_deployment deployment ON deployment.id = step.deployment_id
WHERE step.id = %s AND step.attempt = %s AND step.status = 'running'
"""


def lease_time() -> timedelta:
    """Return for how long a worker may be silent before its step is taken from it."""
    return timedelta(seconds=settings.CONDUCTOR_LEASE_SECONDS)


class Lease:
    """Renew a running step's lease from a thread of its own, until it is lost or left.

    Use it as a context manager. `lost` and `told` answer at once and ask no database. A lease is also
    lost, and stays so, when it could not be renewed in time; one whose deployment was cancelled goes on
    being held, because the tool may need long to stop. Each renewal is also told to the supervisor of
    the step's tool, which stops the tool when the lease runs out.
    """

    def __init__(self, step: Step) -> None:
        self._id, self._attempt = step.pk, step.attempt
        self._seconds = lease_time().total_seconds()
        self._renew_at = time.monotonic() + self._seconds / 3
        self._valid_until = time.monotonic() + self._seconds
        self._file = lease_file(work_folder(step))
        self._taken = False
        stopping = step.deployment.status == DeploymentStatus.CANCELLING
        self._told = REASONS[step.deployment.ends_as] if stopping else None
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease-{step.pk}", daemon=True)

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

    def told(self) -> str | None:
        """Return why the step's deployment wants it to stop, "cancelled" or "timed out", or None."""
        return self._told

    def _keep(self) -> None:
        usual = min(ASK_SECONDS, self._seconds / 3)
        pause = usual
        try:
            while not self.lost() and not self._left.wait(pause):
                try:
                    self._look()
                    pause = usual
                except Error:
                    logger.exception("Step %s could not be held; trying again.", self._id)
                    connection.close()
                    pause = min(PATIENT_SECONDS, self._seconds / 3)
        finally:
            connection.close()

    def _look(self) -> None:
        if time.monotonic() >= self._renew_at:
            self._renew_once()
        with connection.cursor() as cursor:
            cursor.execute(_ASK_SQL, [self._id, self._attempt])
            row = cursor.fetchone()
        if row is None:
            self._taken = True
            return
        status, ends_as, overdue = row
        if status == DeploymentStatus.CANCELLING:
            self._told = REASONS[ends_as]
        elif overdue:
            self._told = "timed out"

    def _renew_once(self) -> None:
        asked = time.monotonic()
        mine = Step.objects.filter(pk=self._id, attempt=self._attempt, status=StepStatus.RUNNING)
        taken = not mine.update(lease_until=Now() + lease_time())
        if taken or self.lost():
            self._taken = True
            return
        self._renew_at = asked + self._seconds / 3
        self._valid_until = asked + self._seconds
        self._tell_supervisor()

    def _tell_supervisor(self) -> None:
        """Write until when the step is held, always as many bytes, so that a full disk is no reason to stop."""
        self._file.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        descriptor = os.open(self._file, os.O_CREAT | os.O_WRONLY, 0o644)
        try:
            os.fchmod(descriptor, 0o644)  # the supervisor may be another user
            os.pwrite(descriptor, f"{self._valid_until:020.3f}\n".encode(), 0)
        finally:
            os.close(descriptor)
