from __future__ import annotations

import os
import signal
import time

import pytest
from django.core.management import CommandError, call_command
from django.db.models.functions import Now
from django_q.models import OrmQ, Schedule, Task

from provisioning.models.workers import Worker
from provisioning.queue.doorbell import ring, ring_many
from provisioning.queue.schedules import REGULAR, SCHEDULES
from tests.provisioning.queue.conftest import TASKS, RealWorker, wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def test_an_idle_worker_ends_at_once_when_told(worker: RealWorker) -> None:
    worker.start()
    worker.runs_a_task()
    assert Worker.objects.get().stopped_at is None
    began = time.monotonic()
    worker.process.terminate()
    assert worker.process.wait(10) == 0
    assert time.monotonic() - began < 5
    assert worker.left_over() == []
    row = Worker.objects.get()
    assert (row.pid, row.queues) == (worker.process.pid, ["default"])
    assert row.stopped_at is not None


def test_signals_to_all_processes_let_a_running_task_end(worker: RealWorker) -> None:
    worker.start()
    ring("default", task=f"{TASKS}.hold")
    wait_for("the task began", lambda: worker.count("began") == 1)
    for process in worker.everything():
        process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    ring("default", task=f"{TASKS}.note")
    assert worker.process.poll() is None
    worker.release()
    assert worker.process.wait(10) == 0
    assert [line.split()[0] for line in worker.events()] == ["began", "ended"]
    assert worker.left_over() == []


def test_a_running_task_hears_that_its_worker_drains(worker: RealWorker) -> None:
    worker.start(processes=1)
    ring("default", task=f"{TASKS}.tell_draining")
    wait_for("the task began", lambda: worker.count("began") == 1)
    worker.process.send_signal(signal.SIGINT)
    assert worker.process.wait(10) == 0
    assert worker.count("drained") == 1


def test_a_second_signal_ends_a_running_task(worker: RealWorker) -> None:
    worker.start(processes=1)
    ring("default", task=f"{TASKS}.hold")
    wait_for("the task began", lambda: worker.count("began") == 1)
    worker.process.terminate()
    time.sleep(0.5)
    assert worker.process.poll() is None
    worker.process.terminate()
    assert worker.process.wait(5) == 1
    assert worker.left_over() == []
    assert worker.count("ended") == 0


def test_killed_idle_worker_processes_are_replaced(worker: RealWorker) -> None:
    worker.start()
    killed = {process.pid for process in worker.workers()}
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    worker.runs_a_task(8)
    assert not killed & {int(line.split()[2]) for line in worker.events()}


def test_a_row_waits_in_the_database_while_no_process_is_idle(worker: RealWorker) -> None:
    worker.start()
    ring_many("default", 2, task=f"{TASKS}.hold")
    wait_for("both processes are busy", lambda: worker.count("began") == 2)
    ring_many("default", 3, task=f"{TASKS}.note")
    time.sleep(0.3)
    assert OrmQ.objects.filter(lock__lte=Now()).count() == 3
    worker.release()
    wait_for("the waiting ones ran", lambda: worker.count("ran") == 3)


def test_a_failing_task_is_stored_and_not_repeated(worker: RealWorker) -> None:
    worker.start(processes=1)
    ring("default", task=f"{TASKS}.fail")
    wait_for("the failure is stored", Task.objects.exists)
    assert not Task.objects.get().success
    worker.runs_a_task(8)
    wait_for("all rows are acknowledged", lambda: not OrmQ.objects.exists())
    assert worker.count("failed") == 1


def test_a_row_that_is_not_signed_is_removed_and_not_run(worker: RealWorker) -> None:
    OrmQ.objects.create(key="default", payload="forged", lock="2000-01-01T00:00:00Z")
    worker.start(processes=1)
    worker.runs_a_task(8)
    wait_for("both rows are gone", lambda: not OrmQ.objects.exists())
    assert "bad signature" in worker.said()


def test_each_queue_has_its_own_processes(worker: RealWorker) -> None:
    worker.start("--queues", "default,production", processes=1)
    ring("default", task=f"{TASKS}.hold")
    wait_for("the task began", lambda: worker.count("began") == 1)
    ring("default", task=f"{TASKS}.note")
    worker.runs_a_task(8, queue="production")
    assert [line.split()[:2] for line in worker.events()] == [
        ["began", "default"],
        ["ran", "production"],
    ]
    assert Worker.objects.get().queues == ["default", "production"]


def test_a_draining_worker_ends_its_task_and_leaves_rows_to_others(worker: RealWorker) -> None:
    worker.start(processes=1)
    ring("default", task=f"{TASKS}.hold")
    wait_for("the task began", lambda: worker.count("began") == 1)
    Worker.objects.update(draining=True)
    ring("default", task=f"{TASKS}.note")
    worker.release()
    wait_for("the task ended", lambda: worker.count("ended") == 1)
    time.sleep(1.5)  # longer than it waits for rows
    assert worker.count("ran") == 0
    assert OrmQ.objects.filter(lock__lte=Now()).count() == 1
    Worker.objects.update(draining=False)
    wait_for("the row was taken", lambda: worker.count("ran") == 1)
    assert worker.titled("idle") == 1


def test_every_worker_takes_the_queue_of_scheduled_work(worker: RealWorker) -> None:
    Schedule.objects.all().delete()
    worker.start("--queues", "production", processes=1)
    worker.runs_a_task(8, queue=REGULAR)
    assert Worker.objects.get().queues == ["production"]
    wait_for("the schedules are there", lambda: Schedule.objects.count() == len(SCHEDULES))
    assert "The schedule conductor pools is missing. It has been put right." in worker.said()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--queues", "default,No!"], "'No!' is not a queue name"),
        (["--queues", ""], "'' is not a queue name"),
        (["--processes", "0"], "--processes must be at least 1"),
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str], says: str) -> None:
    with pytest.raises(CommandError, match=says):
        call_command("worker", *arguments)
    assert not Worker.objects.exists()
