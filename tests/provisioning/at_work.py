"""A worker in a thread, for tests that act while steps run; they need committed rows."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connections

from provisioning.models import Step
from provisioning.workers.tasks import work
from tests.provisioning.place import QUEUE
from tests.provisioning.queue.conftest import wait_for


@contextmanager
def working(*begun: str) -> Iterator[None]:
    """Work off all there is beside the test, which goes on once steps on these keys have begun.

    At its end the test waits until nothing is ready any more.
    """
    thread = threading.Thread(target=_work, daemon=True)
    thread.start()
    try:
        wait_for(f"the driver works at {begun}", lambda: _runs(begun))
        yield
    finally:
        thread.join(60)
    assert not thread.is_alive(), "the worker does not end"


def _work() -> None:
    try:
        work(QUEUE)
    finally:
        connections.close_all()


def _runs(keys: tuple[str, ...]) -> bool:
    begun = Step.objects.filter(status="running", driver_ran=True, resource__key__in=keys)
    return begun.count() == len(keys)
