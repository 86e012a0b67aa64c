from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, connections, transaction
from django_q.models import OrmQ

from provisioning.queue import broker as module
from provisioning.queue.broker import NotifyBroker
from provisioning.queue.doorbell import ring

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def broker() -> Iterator[NotifyBroker]:
    made = NotifyBroker("default")
    yield made
    made.forget_connections()


def test_rows_are_claimed_in_order_and_once(broker: NotifyBroker) -> None:
    ids = [broker.enqueue(f"task {number}") for number in range(3)]
    claimed = [broker.dequeue() for _ in range(3)]
    assert claimed == [[(row, f"task {number}")] for number, row in enumerate(ids)]


def test_two_claimers_never_get_the_same_row(
    broker: NotifyBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_AGAIN", 0.0)
    ids = {broker.enqueue("task") for _ in range(60)}

    def claim(_: int) -> list[int]:
        mine = NotifyBroker("default")
        try:
            return [row for _ in range(20) for row, _ in mine.dequeue() or ()]
        finally:
            mine.forget_connections()
            connections.close_all()

    with ThreadPoolExecutor(4) as executor:
        claimed = [row for rows in executor.map(claim, range(4)) for row in rows]
    assert len(claimed) == 60
    assert set(claimed) == ids


def test_a_new_row_ends_the_wait_at_once(
    broker: NotifyBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_AGAIN", 20.0)

    def enqueue_soon() -> None:
        time.sleep(0.3)
        NotifyBroker("default").enqueue("task")
        connections.close_all()

    with ThreadPoolExecutor(1) as executor:
        began = time.monotonic()
        executor.submit(enqueue_soon)
        assert broker.dequeue() is None
        assert broker.dequeue() is not None
    assert time.monotonic() - began < 5


def test_a_row_stored_between_looking_and_waiting_ends_the_wait(
    broker: NotifyBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_AGAIN", 20.0)
    look = NotifyBroker._claim

    def look_then_enqueue(self: NotifyBroker) -> list[tuple[int, str]]:
        rows = look(self)
        if not OrmQ.objects.exists():
            self.enqueue("task")
        return rows

    monkeypatch.setattr(NotifyBroker, "_claim", look_then_enqueue)
    began = time.monotonic()
    assert broker.dequeue() is None
    assert broker.dequeue() is not None
    assert time.monotonic() - began < 5


def test_a_row_that_is_not_acknowledged_is_shown_again(
    broker: NotifyBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_AGAIN", 0.0)
    monkeypatch.setattr(module, "SHOWN_AGAIN", 0.2)
    row = broker.enqueue("task")
    assert broker.dequeue() == [(row, "task")]
    assert broker.dequeue() is None
    time.sleep(0.25)
    assert broker.dequeue() == [(row, "task")]


def test_an_acknowledged_row_is_gone(broker: NotifyBroker) -> None:
    row = broker.enqueue("task")
    broker.dequeue()
    broker.acknowledge(row)
    assert not OrmQ.objects.exists()


def test_a_row_that_is_shown_again_outlives_its_first_task(
    broker: NotifyBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHOWN_AGAIN", 0.0)
    row = broker.enqueue("task")
    assert broker.dequeue() == [(row, "task")]
    broker.acknowledge(row)
    assert broker.dequeue() == [(row, "task")]


def test_a_doorbell_that_another_transaction_counts_on_is_not_acknowledged_away(
    broker: NotifyBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHOWN_AGAIN", 0.1)
    ring("default")
    claimed = broker.dequeue()
    assert claimed is not None
    time.sleep(0.15)

    def acknowledge_elsewhere() -> None:
        NotifyBroker("default").acknowledge(claimed[0][0])
        connections.close_all()

    with transaction.atomic():
        ring("default")
        assert OrmQ.objects.count() == 1
        with ThreadPoolExecutor(1) as executor:
            executor.submit(acknowledge_elsewhere).result(timeout=5)
    assert broker.dequeue() == claimed


def test_a_lost_connection_is_made_again(
    broker: NotifyBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_AGAIN", 0.05)
    assert broker.dequeue() is None
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert (True,) in cursor.fetchall()
    ring("default")
    claimed = next(filter(None, (broker.dequeue() for _ in range(5))))
    assert OrmQ.objects.get().pk == claimed[0][0]
