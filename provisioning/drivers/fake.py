"""A driver that makes nothing and answers at once, for rehearsals and for tests of the rest.

The template's `config` and the resource's params may say (params win): `wait` (seconds, ended by a
cancel), `fail` (a message), `fail_times` (only the first n attempts fail), `permanent` (whether trying
again is said to help), `outputs` (values; others become `fake-<output>`) and, in `config` only,
`ledger` (a file that gets a line per finished ensure or destroy; default: CONDUCTOR_FAKE_LEDGER) and
`own` (names of outputs that each consumer is given its own of, if the template uses them).
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from provisioning.drivers.base import (
    ANY_OUTPUT,
    DriverError,
    DriverInput,
    DriverResult,
    Run,
    StoppedError,
    TemplateInterface,
    declared_sensitive,
)

_TOLD_BY_PARAMS: dict[str, Any] = {
    "wait": {"type": "number", "minimum": 0, "description": "Seconds to wait."},
    "fail": {"type": "string", "description": "Fail with this message."},
    "fail_times": {"type": "integer", "minimum": 0, "description": "Fail only so many attempts."},
    "permanent": {"type": "boolean", "description": "Say that trying again cannot help."},
}


class FakeDriver:
    """Pretend to make a resource."""

    name = "fake"
    label = "Fake (makes nothing)"

    def tool(self) -> None:
        """Need no tool."""

    def describe(self, content: Path, config: Mapping[str, Any]) -> TemplateInterface:
        """Take any params, among them the orders of the fake itself."""
        schema = {
            "type": "object",
            "properties": dict(_TOLD_BY_PARAMS),
            "additionalProperties": True,
        }
        return TemplateInterface(schema, ())

    def ensure(self, resource: DriverInput, run: Run) -> DriverResult:
        """Wait or fail if told to, and answer with made-up outputs."""
        self._obey(resource, run)
        given = dict(resource.config.get("outputs") or {})
        names = [output.name for output in resource.outputs if output.name != ANY_OUTPUT]
        own = resource.config.get("own", ()) if resource.consumers is not None else ()
        outputs = {name: f"fake-{name}" for name in names if name not in own} | given
        by_consumer = {
            each.id: {
                name: each.previous_outputs.get(name, f"fake-{name}-{secrets.token_hex(4)}")
                for name in own
            }
            for each in resource.consumers or ()
        }
        self._note("create", resource, run)
        sensitive = declared_sensitive(resource.outputs, {*outputs, *own})
        return DriverResult(outputs, sensitive, consumer_outputs=by_consumer)

    def destroy(self, resource: DriverInput, run: Run) -> None:
        """Wait or fail if told to by the template's config."""
        self._obey(resource, run, from_params=False)
        self._note("destroy", resource, run)

    def _obey(self, resource: DriverInput, run: Run, *, from_params: bool = True) -> None:
        told = dict(resource.config) | (dict(resource.params) if from_params else {})
        run.log(f"Pretending to work on {resource.uid}.\n")
        _wait(float(told.get("wait") or 0), run)
        if told.get("fail") and run.attempt <= int(told.get("fail_times", run.attempt)):
            raise DriverError(str(told["fail"]), permanent=bool(told.get("permanent", False)))

    def _note(self, action: str, resource: DriverInput, run: Run) -> None:
        ledger = resource.config.get("ledger") or os.environ.get("CONDUCTOR_FAKE_LEDGER")
        if ledger:
            line = f"{action} {resource.resource_id} {os.getpid()} {run.attempt}\n"
            descriptor = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)


def _wait(seconds: float, run: Run) -> None:
    end = time.monotonic() + seconds
    while True:
        now = time.monotonic()
        timed_out = run.deadline is not None and now >= run.deadline
        reason = "timed out" if timed_out else run.should_stop()
        if reason is not None:
            raise StoppedError(f"The fake was stopped ({reason}).", reason)
        if now >= end:
            return
        time.sleep(min(0.02, end - now))
