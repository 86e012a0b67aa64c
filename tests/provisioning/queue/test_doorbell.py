from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections, transaction
from django_q.models import OrmQ

from provisioning.queue import broker
from provisioning.queue.broker import NotifyBroker
from provisioning.queue.doorbell import MOST_AT_ONCE, WORK, QueueNameError, ring, ring_many


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a broker that finds nothing return at once."""
    monkeypatch.setattr(broker, "LOOK_AGAIN", 0.0)


def claim_elsewhere(queue: str = "default") -> int:
    """Return how many rows another process, with connections of its own, claims in one look."""

    def claim() -> int:
        other = NotifyBroker(queue)
        try:
            return len(other.dequeue() or ())
        finally:
            other.forget_connections()
            connections.close_all()

    with ThreadPoolExecutor(1) as executor:
        return executor.submit(claim).result()


@pytest.mark.django_db
def test_a_doorbell_names_its_queue_and_nothing_else() -> None:
    ring("default")
    row = OrmQ.objects.get()
    assert row.key == "default"
    assert (row.task["func"], row.task["args"], row.task["kwargs"]) == (WORK, ("default",), {})


@pytest.mark.django_db(transaction=True)
def test_a_doorbell_is_undone_with_its_transaction() -> None:
    with transaction.atomic():
        ring_many("default", 3)
        transaction.set_rollback(True)
    assert not OrmQ.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_doorbell_cannot_be_heard_before_its_transaction_ends() -> None:
    with transaction.atomic():
        ring("default")
        assert claim_elsewhere() == 0
    assert claim_elsewhere() == 1


@pytest.mark.django_db(transaction=True)
def test_a_waiting_doorbell_is_used_again() -> None:
    for _ in range(100):
        ring("default")
    assert OrmQ.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_doorbell_used_again_cannot_be_heard_before_the_second_transaction_ends() -> None:
    ring("default")
    with transaction.atomic():
        ring("default")
        assert OrmQ.objects.count() == 1
        assert claim_elsewhere() == 0
    assert claim_elsewhere() == 1


@pytest.mark.django_db(transaction=True)
def test_a_doorbell_held_by_another_transaction_is_not_waited_for() -> None:
    ring("default")

    def ring_elsewhere() -> None:
        ring("default")
        connections.close_all()

    with transaction.atomic():
        ring("default")
        with ThreadPoolExecutor(1) as executor:
            executor.submit(ring_elsewhere).result(timeout=5)
        assert claim_elsewhere() == 1
    assert OrmQ.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_a_doorbell_that_a_worker_has_heard_is_not_used_again() -> None:
    ring("default")
    assert claim_elsewhere() == 1
    ring("default")
    assert OrmQ.objects.count() == 2


@pytest.mark.django_db
def test_a_doorbell_of_another_task_is_not_used_for_work() -> None:
    ring("default", task="tests.provisioning.queue.tasks.note")
    ring("default")
    assert [row.task["func"] for row in OrmQ.objects.order_by("id")] == [
        "tests.provisioning.queue.tasks.note",
        WORK,
    ]


@pytest.mark.django_db
@pytest.mark.parametrize(("count", "rows"), [(0, 0), (1, 1), (3, 3), (10_000, MOST_AT_ONCE)])
def test_as_many_workers_are_woken_as_can_help(count: int, rows: int) -> None:
    ring_many("default", count)
    assert OrmQ.objects.count() == rows


@pytest.mark.django_db
def test_waiting_doorbells_are_filled_up_to_the_wanted_number() -> None:
    ring_many("default", 2)
    ring_many("default", 5)
    ring_many("default", 3)
    assert OrmQ.objects.count() == 5


@pytest.mark.django_db(transaction=True)
def test_queues_do_not_hear_one_another() -> None:
    ring("production")
    assert claim_elsewhere("default") == 0
    assert claim_elsewhere("production") == 1


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["", "Default", "a b", "-a", "a-", "a" * 41, 'x"; drop', "ü"])
def test_a_text_that_cannot_name_a_queue_is_refused(name: str) -> None:
    with pytest.raises(QueueNameError, match="is not a queue name"):
        ring(name)
    assert not OrmQ.objects.exists()
