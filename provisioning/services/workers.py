"""Drain workers: let one end what it runs and take nothing new."""

from __future__ import annotations

from datetime import timedelta

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from provisioning.exceptions import ConductorError
from provisioning.models import Worker
from provisioning.services.audit import record
from provisioning.services.people import require_staff

SHOWN = timedelta(days=1)
"""How long a worker that is no more is listed."""


class UnknownWorkerError(ConductorError):
    """Say that a name is no worker's, or several workers'."""


def recent_workers() -> QuerySet[Worker]:
    """Select the workers that were seen lately: those that have not stopped first."""
    seen = Worker.objects.filter(last_seen_at__gt=timezone.now() - SHOWN)
    return seen.order_by("stopped_at", "host", "pid")


def find_worker(name: str) -> Worker:
    """Return the worker that has not stopped and has this host, `host:process` or id.

    Raises UnknownWorkerError.
    """
    running = list(recent_workers().filter(stopped_at=None))
    names = {worker.pk: f"{worker.host}:{worker.pid}" for worker in running}
    found = [each for each in running if name in (str(each.pk), each.host, names[each.pk])]
    if len(found) == 1:
        return found[0]
    if found:
        raise UnknownWorkerError(
            f"Several workers are on {name}: {', '.join(names[each.pk] for each in found)}. Name one."
        )
    there_are = f"There are {', '.join(names.values())}." if names else "None is running."
    raise UnknownWorkerError(f"There is no worker {name}. {there_are}")


def drain_worker(*, worker: Worker, draining: bool, actor: User) -> Worker:
    """Let a worker end what it runs and take nothing new, or take steps again.

    It holds until the worker's command ends. Raises NotAllowedError for others than staff.
    """
    require_staff(actor, "drain a worker")
    with transaction.atomic():
        changed = Worker.objects.filter(pk=worker.pk).exclude(draining=draining)
        if changed.update(draining=draining):
            record(
                actor=actor,
                action="worker.draining" if draining else "worker.resumed",
                subject_type="worker",
                subject_id=worker.pk,
                subject=f"{worker.host}:{worker.pid}",
            )
    worker.draining = draining
    return worker
