"""Run one claimed step: give its driver the input, and store what comes of it."""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, TypeVar

from django.db import InterfaceError, OperationalError
from django.db.models import F
from django.db.models.functions import Now

from provisioning.drivers import get_driver, work_folder
from provisioning.drivers.base import (
    ANY_OUTPUT,
    Consumer,
    Driver,
    DriverError,
    DriverInput,
    DriverResult,
    LeaseLostError,
    Output,
    StateLocation,
    StateLocator,
    StoppedError,
    declared_sensitive,
)
from provisioning.drivers.output import printable
from provisioning.drivers.secrets import resolve_secrets
from provisioning.durations import duration_text
from provisioning.encryption import mac
from provisioning.exceptions import ConductorError
from provisioning.models import Resource, ResourceState, Step, StepAction, StepStatus
from provisioning.planning.references import keys_in, sensitive_params, substitute_bound
from provisioning.planning.users import USES_CONSUMERS
from provisioning.score.secretref import secretrefs
from provisioning.services.catalog import unpack
from provisioning.services.deployments import cancel, finish
from provisioning.services.outputs import consumers_of, needed_outputs, stored_outputs
from provisioning.workers.lease import Lease, lease_time
from provisioning.workers.run import StepRun

logger = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_SECONDS = (1.0, 4.0)
"""A driver that says trying again may help is tried again after these pauses, by the same worker."""


@dataclass(frozen=True, slots=True)
class _Task:
    """What one attempt is about: the driver, its input, and the keyed digest of that input."""

    resource: Resource
    driver: Driver
    input: DriverInput
    mac: str


def run_step(step: Step) -> bool:
    """Do a claimed step's work and end the step; return False if it was lost to another worker."""
    try:
        for pause in (*RETRY_SECONDS, None):
            if not _attempt(step, pause):
                break
    except LeaseLostError as error:
        logger.warning("%s", error)
        return False
    return True


def _attempt(step: Step, pause: float | None) -> bool:
    """Try once; return whether to try again, which is after the pause, with the next attempt."""
    with Lease(step) as lease:
        driver = step.resource.template_version.template.driver
        run = StepRun(step, lost=lease.lost, told=lease.told, driver=driver)
        try:
            _work(step, run)
        except LeaseLostError:
            raise
        except (OperationalError, InterfaceError) as error:
            # Whoever has the step after the lease goes on with it.
            # Its text may hold anything, and so may those it was raised from.
            raise LeaseLostError(run.masked(f"Step {step.pk} was left: {error}")) from None
        except StoppedError as error:
            _stopped(step, run, str(error), error.reason)
        except DriverError as error:
            if pause is None or error.permanent:
                _fail(step, run, str(error))
                return False
            run.log(f"{error}\nTrying again in {pause:g} s.\n", level="warning")
            run.deadline = None  # it was for the driver, and the next attempt has another
            if reason := _pause(pause, run):
                _stopped(step, run, str(error), reason)
                return False
            run.close()
            _next_attempt(step)
            return True
        except ConductorError as error:
            _fail(step, run, str(error))
        except Exception as error:
            # The message may hold anything, so it goes to the worker's own log only.
            details = run.masked(traceback.format_exc())
            logger.error("Step %s failed unexpectedly.\n%s", step.pk, details)
            _fail(
                step,
                run,
                f"An unexpected error ({type(error).__name__}) in the driver; the worker's log has "
                "the details.",
            )
        return False


def _store(run: StepRun, write: Callable[..., T], step: Step, *values: Any, **named: Any) -> T:
    """Call a service that moves the step, again if the database was away.

    It gets a copy each time: what a failed transaction did to the object is not undone.
    """
    return run.persist(lambda: write(copy(step), *values, **named))


def _work(step: Step, run: StepRun) -> None:
    if step.action == StepAction.DESTROY:
        _destroy(step, run)
    else:
        _ensure(step, run)


def _ensure(step: Step, run: StepRun) -> None:
    if step.resource.adopted:
        run.log("Nothing to do: it was adopted, and Conductor does not change it.\n")
        run.close()
        _store(run, finish.finish_unchanged, step, step.resource.spec_digest)
        return
    task = run.persist(lambda: _task(step, run))
    resource = task.resource
    _store(run, finish.check_needs, step, resource)
    settled = resource.state in (ResourceState.ACTIVE, ResourceState.UPDATING)
    if settled and resource.applied_mac and resource.applied_mac == task.mac:
        run.log("Nothing to do: the input is what was applied last.\n")
        run.close()
        _store(run, finish.finish_unchanged, step, resource.spec_digest)
        return
    _store(run, finish.begin_ensure, step, task.input.state)
    result = task.driver.ensure(task.input, run)
    sensitive = _sensitive(task, result, run)
    _check_declared(task.input, result)
    _clean_up(run)
    _store(
        run,
        finish.finish_ensure,
        step,
        outputs=result.outputs,
        sensitive=sensitive,
        by_consumer={
            each.id: result.consumer_outputs.get(each.id, {}) for each in task.input.consumers or ()
        },
        mac=task.mac,
        state=result.state_location,
    )


def _destroy(step: Step, run: StepRun) -> None:
    if not _store(run, finish.begin_destroy, step):
        return
    task = run.persist(lambda: _task(step, run, gone=True))
    task.driver.destroy(task.input, run)
    _clean_up(run)
    _store(run, finish.finish_destroy, step)


def _task(step: Step, run: StepRun, *, gone: bool = False) -> _Task:
    """Read what the driver needs; with `gone`, references that lead nowhere any more stay as text."""
    resource = step.resource
    version = resource.template_version
    run.learn_credentials()
    values, secret = needed_outputs(resource, keys_in(resource.params))
    for key, names in secret.items():
        for name in names:
            run.mask(values[key][name])
    previous, own_secret = stored_outputs(resource)
    for key in own_secret:
        run.mask(previous[key])
    consumers = _consumers(resource, run) if USES_CONSUMERS in version.uses else None
    try:
        params = substitute_bound(resource.params, values, version.params_schema)
    except ConductorError:
        if not gone:
            raise
        params = dict(resource.params)
    hidden = sensitive_params(resource.params, secret)
    hidden |= {name for name, value in params.items() if any(secretrefs(value, ()))}
    params = resolve_secrets(params, os.environ)
    for name in hidden:
        run.mask(params[name])
    driver = get_driver(version.template.driver)
    driver_input = DriverInput(
        resource_id=str(resource.pk),
        uid=resource.uid,
        type=resource.type,
        class_=resource.class_name,
        name=resource.name,
        params=params,
        sensitive_params=hidden,
        content=unpack(version),
        content_digest=version.digest,
        config=version.config,
        outputs=tuple(Output(**output) for output in version.outputs),
        context=resource.context,
        previous_outputs=previous,
        imports=resource.imports,
        import_changes=resource.import_changes,
        consumers=consumers,
        state=_state_location(resource, driver),
    )
    applied = {"version": version.digest, "params": params, "context": resource.context}
    if consumers is not None:
        applied["consumers"] = [each.id for each in consumers]
    return _Task(resource, driver, driver_input, mac(applied))


def _state_location(resource: Resource, driver: Driver) -> StateLocation | None:
    """Return where the state is: where it was at first, or for a new resource as its environment says."""
    if resource.state_backend:
        return StateLocation(
            resource.state_backend, resource.state_location, resource.state_metadata
        )
    if isinstance(driver, StateLocator):
        return driver.locate_state(resource.environment.state_backend, str(resource.pk))
    return None


def _consumers(resource: Resource, run: StepRun) -> tuple[Consumer, ...]:
    """Read who is given outputs of its own; what they were given before is kept out of the log."""
    found = consumers_of(resource)
    for consumer, secret in found:
        for name in secret:
            run.mask(consumer.previous_outputs[name])
    return tuple(consumer for consumer, _ in found)


def _sensitive(task: _Task, result: DriverResult, run: StepRun) -> frozenset[str]:
    """Name the outputs to encrypt: declared so, called so by the driver, or made from a secret."""
    given = [
        (name, value)
        for outputs in (result.outputs, *result.consumer_outputs.values())
        for name, value in outputs.items()
    ]
    names = frozenset(name for name, _ in given)
    sensitive = declared_sensitive(task.input.outputs, names) | (result.sensitive & names)
    for name, value in given:
        if name in sensitive:
            run.mask(value)
    return sensitive | {name for name, value in given if run.holds_secret(value)}


def _check_declared(resource: DriverInput, result: DriverResult) -> None:
    """Raise a DriverError if anybody would miss an output that the template declares.

    Where each user is given outputs of its own, it is enough if each has it.
    """
    given: list[Mapping[str, Any]] = [result.outputs]
    if resource.consumers is not None:
        own = (result.consumer_outputs.get(each.id, {}) for each in resource.consumers)
        given = [{**result.outputs, **outputs} for outputs in own]
    missing = sorted(
        output.name
        for output in resource.outputs
        if output.name != ANY_OUTPUT and any(output.name not in outputs for outputs in given)
    )
    if missing:
        raise DriverError(
            f"The driver did not deliver the declared output {', '.join(missing)}.", permanent=True
        )


def _clean_up(run: StepRun) -> None:
    """Remove what the tool left, while no other attempt can have begun to use it; end the log."""
    work_folder.remove(run)
    run.close()


def _fail(step: Step, run: StepRun, message: str) -> None:
    _store(run, finish.fail_step, step, _last_words(run, message))


def _stopped(step: Step, run: StepRun, message: str, reason: str) -> None:
    """End a step that was told to stop: cancelled with its deployment, or failed for its own time."""
    if reason == "lease lost":
        raise LeaseLostError(f"Step {step.pk} was stopped: its lease was lost.")
    run.persist(lambda: cancel.time_out(step.deployment_id))
    if run.persist(lambda: cancel.is_stopping(step.deployment_id)):
        _store(run, finish.cancel_step, step, _last_words(run, message))
        return
    version = step.resource.template_version
    if reason == "timed out" and version.timeout_seconds:
        allowed = duration_text(version.timeout_seconds)
        message = f"It took longer than the {allowed} that {version.template} allows. {message}"
    _fail(step, run, message)


def _last_words(run: StepRun, message: str) -> str:
    """End the log with what is told of the step's end; return that without secrets."""
    run.forget_credentials()
    message = run.masked(printable(message))
    run.log_end(message + "\n")
    return message


def _pause(seconds: float, run: StepRun) -> str | None:
    """Wait before the next attempt; return why there is to be none, if that is so."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if reason := run.should_stop():
            return reason
        time.sleep(min(left, 0.05))
    return None


def _next_attempt(step: Step) -> None:
    """Count one more attempt of the same worker; raise LeaseLostError."""
    mine = Step.objects.filter(pk=step.pk, attempt=step.attempt, status=StepStatus.RUNNING)
    if not mine.update(attempt=F("attempt") + 1, lease_until=Now() + lease_time()):
        raise LeaseLostError(f"Step {step.pk} is another worker's now.")
    step.attempt += 1
    step.resource.refresh_from_db()
