"""What the schedules of `provisioning.queue.schedules` call; any number may run at once.

Each takes the name of the queue, as every task does, and has no use for it.
"""

from __future__ import annotations

from datetime import timedelta

from django.core.management import call_command
from django.utils import timezone

from provisioning.models import Worker
from provisioning.queue.schedules import forget_tasks
from provisioning.services.approvals import expire_approvals
from provisioning.services.figures import counters
from provisioning.services.logs.retention import delete_old_logs
from provisioning.services.pools import expire_claims, fill_pools
from provisioning.services.resources.destroy import destroy_unused
from provisioning.services.resources.taking_back import take_back_everywhere

KEPT = timedelta(days=30)
"""How long failed tasks, and workers that are no more, are remembered."""


def tend_pools(_queue: str = "") -> None:
    """End overdue claims of pools, and fill them."""
    expire_claims()
    fill_pools()


def expire(_queue: str = "") -> None:
    """End the requests that nobody answered, and destroy what nobody has used for long enough.

    What those were given who use a resource no more is taken back.
    """
    expire_approvals()
    destroy_unused()
    take_back_everywhere()


def count_figures(_queue: str = "") -> None:
    """Count what happened since the last time, so that `/metrics` need not."""
    counters.count_events()


def forget_old(_queue: str = "") -> None:
    """Remove what is kept for a time only."""
    before = timezone.now() - KEPT
    Worker.objects.filter(last_seen_at__lt=before).delete()
    forget_tasks(before)
    delete_old_logs()
    call_command("clearsessions")
