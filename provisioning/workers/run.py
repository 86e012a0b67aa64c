"""What a running driver can ask of its worker: see `provisioning.drivers.base.Run`."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import InterfaceError, OperationalError, connection, transaction

from provisioning.drivers.base import DriverError, LeaseLostError
from provisioning.drivers.folders import (
    credentials_folder,
    make_control_folder,
    read_left,
    write_private,
)
from provisioning.drivers.secrets import secrets_among
from provisioning.models import Step
from provisioning.services.credentials import Given, credentials_for
from provisioning.services.state.versions import hold_step, newest_state, store_version
from provisioning.workers.external_state import StepExternalState
from provisioning.workers.logs import Log
from provisioning.workers.masking import Mask

T = TypeVar("T")

MOST_LAG = 2_147_483_647
_AGAIN_SECONDS = 0.2
PASSED_ON = (
    "PATH", "LANG", "LC_ALL", "TZ", "TMPDIR",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "CONDUCTOR_FAKE_LEDGER",
)  # fmt: skip
FOR_DRIVERS = "CONDUCTOR_DRIVER_ENV_"
"""A variable with this prefix reaches every driver's tool without it, such as cloud credentials."""


class StepRun:
    """Implement `Run` for one attempt at a step."""

    def __init__(
        self,
        step: Step,
        *,
        lost: Callable[[], bool],
        driver: str,
        told: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._row = step
        self._lost = lost
        self._told = told
        self._mask = Mask()
        self._log = Log(step, self._mask)
        self.step, self.attempt = step.pk, step.attempt
        self.recovering = step.losses > 0
        seconds = step.resource.template_version.timeout_seconds
        self.deadline = None if seconds is None else time.monotonic() + seconds
        self.work_folder = work_folder(step)
        self.work_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.work_folder.chmod(0o700)
        self._driver = driver

    @cached_property
    def environment(self) -> Mapping[str, str]:
        """Return what a tool may see of the worker's environment, and its environment's credentials."""
        environment = _environment(self.work_folder, self._driver)
        for given in self._credentials:
            environment[given.name] = self._in_file(given) if given.as_file else given.value
        return environment

    @cached_property
    def _credentials(self) -> list[Given]:
        resource = self._row.resource
        return self.persist(lambda: credentials_for(resource.environment_id, os.environ))

    def learn_credentials(self) -> None:
        """Keep the credentials that a tool may have got out of every log line from now on."""
        for given in self._credentials:
            self.mask(given.value)
        for secret in secrets_among(_passed_on()):
            self.mask(secret)

    def forget_credentials(self) -> None:
        """Remove the files with credentials, once nothing of the run needs them any more."""
        shutil.rmtree(credentials_folder(self.work_folder), ignore_errors=True)

    def _in_file(self, given: Given) -> str:
        make_control_folder(self.work_folder)
        folder = credentials_folder(self.work_folder)
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / given.name
        if not _holds(path, given.value.encode()):  # a tool that is followed may be reading it
            write_private(path, given.value.encode())
        return str(path)

    def persist(self, write: Callable[[], T]) -> T:
        """Do what needs the database and may be repeated, again until it can be reached.

        Raises LeaseLostError once the lease is lost: a restart of the database is waited for, an
        outage that outlasts the lease is not.
        """
        while True:
            try:
                return write()
            except (OperationalError, InterfaceError) as error:
                connection.close()
                if self._lost():
                    message = f"The database could not be reached while step {self.step} was held."
                    raise LeaseLostError(message) from error
                time.sleep(_AGAIN_SECONDS)

    def log(self, text: str, *, stream: str = "stdout", level: str = "info") -> None:
        """Store log text, secrets masked; see `Run.log`."""
        self._log.add(text, stream, level)
        self.persist(self._log.flush_if_due)

    def log_end(self, line: str) -> None:
        """Store what is told of the step's end, however much was logged before, and the rest of the log."""
        self._log.end_with(line, "error")
        self.close()

    def mask(self, value: object) -> None:
        """Keep a secret out of every log line from now on; lists and objects count by value."""
        self._mask.add(value)

    def masked(self, text: str) -> str:
        """Return the text without this run's secrets."""
        return self._mask.hide(text)

    def holds_secret(self, value: object) -> bool:
        """Tell whether a JSON value contains one of this run's secrets."""
        return self._mask.occurs_in(value)

    def should_stop(self) -> str | None:
        """Return why the run must stop, or None; also passes waiting log lines on."""
        if self._lost():
            return "lease lost"
        self.persist(self._log.flush_if_due)
        over = self.deadline is not None and time.monotonic() >= self.deadline
        return self._told() or ("timed out" if over else None)

    def load_state(self) -> bytes | None:
        """Return the newest stored state of the resource."""
        return self.persist(lambda: newest_state(self._row.resource_id))

    def ship_state(
        self,
        state: bytes,
        *,
        serial: int | None = None,
        lineage: str = "",
        written_at: float | None = None,
    ) -> None:
        """Store a new version of the state; see `Run.ship_state`."""
        self.persist(lambda: self._ship(state, serial, lineage, written_at))

    @transaction.atomic
    def _ship(
        self, state: bytes, serial: int | None, lineage: str, written_at: float | None
    ) -> None:
        hold_step(self.step, self.attempt)
        lag = None
        if written_at is not None:
            lag = min(max(0, round((time.time() - written_at) * 1000)), MOST_LAG)
        store_version(
            resource_id=self._row.resource_id,
            state=state,
            serial=serial,
            lineage=lineage,
            step=self.step,
            attempt=self.attempt,
            lag_ms=lag,
        )

    @cached_property
    def external_state(self) -> StepExternalState:
        """Return what is known of the resource's external state."""
        return StepExternalState(self._row, persist=self.persist, masked=self.masked)

    def close(self) -> None:
        """Store the rest of the log, so that it is there when the step's end can be seen."""
        self.persist(self._log.close)


def work_folder(step: Step) -> Path:
    """Return the folder for the tools of a step's resource; it survives attempts."""
    return Path(settings.CONDUCTOR_WORK_DIR) / str(step.resource_id)


def _holds(path: Path, content: bytes) -> bool:
    try:
        return read_left(path) == content
    except (FileNotFoundError, DriverError):
        return False


def _environment(home: Path, driver: str) -> dict[str, str]:
    """Choose what a tool may see of the worker's environment.

    That is PASSED_ON and what the operator chose with FOR_DRIVERS; the address of the PostgreSQL
    administrator reaches the `postgres` driver only.
    """
    environment = {"HOME": str(home)}
    if driver == "postgres":
        try:
            environment["CONDUCTOR_POSTGRES_ADMIN_URL"] = settings.CONDUCTOR_POSTGRES_ADMIN_URL()
        except ImproperlyConfigured as error:
            raise DriverError(str(error), permanent=True) from error
    return environment | _passed_on()


def _passed_on() -> dict[str, str]:
    chosen = (name for name in os.environ if name.startswith(FOR_DRIVERS))
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return passed_on | {name.removeprefix(FOR_DRIVERS): os.environ[name] for name in chosen}
