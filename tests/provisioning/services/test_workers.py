from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from provisioning.models import AuditEvent, Worker
from provisioning.services.people import NotAllowedError, system_user
from provisioning.services.workers import UnknownWorkerError, drain_worker, find_worker

pytestmark = pytest.mark.django_db


def worker(host: str, pid: int, **fields: Any) -> Worker:
    return Worker.objects.create(host=host, pid=pid, last_seen_at=timezone.now(), **fields)


def test_a_worker_is_drained_and_resumed() -> None:
    one = worker("alpha", 1)

    drain_worker(worker=one, draining=True, actor=system_user())
    assert Worker.objects.get().draining is True
    drain_worker(worker=one, draining=True, actor=system_user())
    drain_worker(worker=one, draining=False, actor=system_user())

    assert Worker.objects.get().draining is False
    events = AuditEvent.objects.order_by("pk").values_list("action", "subject")
    assert list(events) == [("worker.draining", "alpha:1"), ("worker.resumed", "alpha:1")]


def test_draining_is_for_staff(alice: User) -> None:
    one = worker("alpha", 1)

    with pytest.raises(NotAllowedError):
        drain_worker(worker=one, draining=True, actor=alice)

    assert Worker.objects.get().draining is False


def test_a_worker_is_found_by_host_process_or_id() -> None:
    one, two = worker("alpha", 1), worker("beta", 2)
    worker("beta", 3, stopped_at=timezone.now())

    assert find_worker("alpha") == one
    assert find_worker("beta:2") == two
    assert find_worker(str(two.pk)) == two


def test_several_on_a_host_are_named() -> None:
    worker("alpha", 1)
    worker("alpha", 2)

    with pytest.raises(UnknownWorkerError, match="on alpha: alpha:1, alpha:2"):
        find_worker("alpha")


def test_an_unknown_one_is_told_who_there_is() -> None:
    with pytest.raises(UnknownWorkerError, match="None is running"):
        find_worker("gamma")
    worker("alpha", 1)
    with pytest.raises(UnknownWorkerError, match="There are alpha:1"):
        find_worker("gamma")
