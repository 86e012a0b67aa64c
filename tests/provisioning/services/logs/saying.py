"""Lets steps speak as their workers do."""

from __future__ import annotations

from provisioning.models import Step
from provisioning.services import transitions
from provisioning.workers.logs import Log
from provisioning.workers.masking import Mask
from provisioning.workers.tasks import claim
from tests.provisioning.place import Place


def claimed(place: Place, count: int = 1) -> list[Step]:
    """Deploy so many independent resources, and return their steps as workers that took them."""
    place.template("part")
    place.submit("".join(f"  p{number}:\n    type: part\n" for number in range(count)))
    steps = [claim("default") for _ in range(count)]
    return [step for step in steps if step is not None]


def say(step: Step, *texts: str, log: Log | None = None) -> Log:
    """Store each text as a chunk of its own; go on with a log that was begun."""
    log = log or Log(step, Mask())
    for text in texts:
        log.add(text, "stdout", "info")
        log.flush()
    return log


def next_attempt(step: Step) -> Step:
    """Return the step as the worker that takes it over has it."""
    transitions.move(step, "recovering", reason="Its worker was lost.")
    transitions.move(step, "pending", reason="Its tool has ended.")
    transitions.move(step, "running", attempt=step.attempt + 1)
    return step
