"""Wake the workers of a queue.

A doorbell says "look for work" and nothing else, so it may come twice, late or never without harm.
It is written by the transaction that made the work, and reaches a worker when that commits.

A doorbell that still waits is used again instead of writing another, or a busy queue would collect
thousands. It must not be taken before our work can be seen, so it is locked until our transaction
ends: whoever takes it afterwards also sees what we wrote. A row that is locked already is passed over
(a worker or another transaction has it), so ringing never waits and cannot deadlock. For the same
reason the broker acknowledges no row that waits again.
"""

from __future__ import annotations

import re

from django.db import transaction
from django.db.models.functions import Now
from django_q.brokers import get_broker
from django_q.conf import Conf
from django_q.models import OrmQ
from django_q.tasks import async_task

from provisioning.exceptions import ConductorError

WORK = "provisioning.workers.tasks.work"
MOST_AT_ONCE = 32
"""No more workers are woken at once: each goes on until nothing is ready."""

_QUEUE_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]{0,38}[a-z0-9])?")


class QueueNameError(ConductorError):
    """Say that a text cannot be the name of a queue."""


def check_queue_name(queue: str) -> str:
    """Return the name if it can be a queue's; raise QueueNameError if not."""
    if not _QUEUE_NAME.fullmatch(queue):
        raise QueueNameError(
            f"{queue!r} is not a queue name: use up to 40 small letters, digits, - and _, "
            "with a letter or digit at both ends."
        )
    return queue


def ring(queue: str, *, task: str = WORK) -> None:
    """Wake one worker of the queue when the current transaction commits.

    `task` is the dotted name of a function that is called with the queue's name.
    """
    ring_many(queue, 1, task=task)


def ring_many(queue: str, count: int, *, task: str = WORK) -> None:
    """Wake up to `count` workers of the queue when the current transaction commits."""
    check_queue_name(queue)
    wanted = min(count, MOST_AT_ONCE)
    if wanted < 1:
        return
    broker = get_broker(queue)
    with transaction.atomic(using=Conf.ORM, savepoint=False):
        waiting = _hold_waiting(queue, wanted, task)
        for _ in range(wanted - waiting):
            async_task(task, queue, cluster=queue, broker=broker, task_name=f"doorbell {queue}")
        if waiting:
            broker.notify()


def _hold_waiting(queue: str, count: int, task: str) -> int:
    """Lock up to `count` waiting rows until the transaction ends; return how many are such doorbells."""
    rows = (
        OrmQ.objects.using(Conf.ORM)
        .filter(key=queue, lock__lte=Now())
        .order_by("id")
        .select_for_update(skip_locked=True)[:count]
    )
    return sum(row.task.get("func") == task for row in rows)
