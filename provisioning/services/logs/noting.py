"""Let Conductor itself say why a step ended before its driver ran."""

from __future__ import annotations

from django.db.models import Max

from provisioning.models import LogChunk, Step


def note(step: Step, text: str) -> None:
    """Add a line to the log of the step's attempt, in the transaction that ends the step.

    Afterwards would be too late: who reads the log reckons that an ended step says no more.
    """
    said = LogChunk.objects.filter(step=step, attempt=step.attempt)
    last = said.aggregate(last=Max("sequence"))["last"]
    LogChunk.objects.create(
        step=step,
        attempt=step.attempt,
        sequence=0 if last is None else last + 1,
        text=f"{text}\n",
    )
