"""Read which tools the workers have."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta
from functools import cached_property

from django.db.models import Q
from django.db.models.functions import Now

from provisioning.drivers import get_driver
from provisioning.models import Worker

WORKER_ALIVE = timedelta(seconds=60)


class Tools:
    """Know the workers' tools as they are at the first question."""

    def missing(self, drivers: Collection[str], queue: str) -> dict[str, str]:
        """Name, by driver, the tools that no worker of the queue has.

        Workers tell what they have. Before the first one has ever started, this machine is asked.
        """
        workers = [worker for worker in self._workers if queue in worker.queues]
        living = [worker for worker in workers if self._workers[worker]]
        missing = {}
        for name in sorted(drivers):
            tool = get_driver(name).tool()
            if tool is None:
                continue
            found = (
                any(tool[0] in worker.tools for worker in living or workers[:1])
                if workers
                else tool[1] is not None
            )
            if not found:
                missing[name] = tool[0]
        return missing

    @cached_property
    def _workers(self) -> Mapping[Worker, bool]:
        """Return all workers, the last seen first, and whether each is alive."""
        alive = Q(last_seen_at__gte=Now() - WORKER_ALIVE, stopped_at__isnull=True)
        rows = Worker.objects.annotate(alive=alive).order_by("-last_seen_at")
        return {each: each.alive for each in rows}
