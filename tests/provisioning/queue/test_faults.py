from __future__ import annotations

import os
import random
import signal
import time

import psutil
import pytest
from django.db import connection
from django_q.models import Schedule

from provisioning.models import Figure
from provisioning.models.workers import Worker
from provisioning.queue.doorbell import ring, ring_many
from provisioning.queue.schedules import schedule_states
from tests.provisioning.queue.conftest import GOES_ON_WITHIN, TASKS, RealWorker, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.django_db(transaction=True)]


def test_work_goes_on_after_the_sentinel_was_killed(worker: RealWorker) -> None:
    worker.start()
    orphans = worker.workers()
    worker.sentinel().kill()
    worker.runs_a_task()
    wait_for("its idle processes end", lambda: not any(map(psutil.Process.is_running, orphans)))


def test_a_running_task_ends_although_the_sentinel_was_killed(worker: RealWorker) -> None:
    worker.start()
    ring("default", task=f"{TASKS}.hold")
    wait_for("the task began", lambda: worker.count("began") == 1)
    worker.sentinel().kill()
    worker.runs_a_task()
    worker.release()
    wait_for("the task ended", lambda: worker.count("ended") == 1)


def test_nothing_lives_on_after_the_command_was_killed(worker: RealWorker) -> None:
    worker.start()
    worker.runs_a_task()
    worker.workers()
    worker.main.kill()
    worker.process.wait(10)
    wait_for("all processes end", lambda: worker.left_over() == [], 5)


def test_work_goes_on_after_a_busy_process_was_killed(worker: RealWorker) -> None:
    worker.start(processes=1)
    ring("default", task=f"{TASKS}.hold")
    wait_for("the task began", lambda: worker.count("began") == 1)
    worker.workers()[0].kill()
    worker.runs_a_task()


def test_a_task_whose_process_was_killed_is_run_again(worker: RealWorker) -> None:
    worker.start(processes=1)
    ring("default", task=f"{TASKS}.hold")
    wait_for("the task began", lambda: worker.count("began") == 1)
    worker.workers()[0].kill()
    worker.release()
    wait_for("it ran again", lambda: worker.count("ended") == 1, 45)


def test_the_heartbeat_goes_on_after_its_process_was_killed(worker: RealWorker) -> None:
    worker.start()
    worker.parts("chores")[0].kill()
    seen = Worker.objects.get().last_seen_at
    wait_for("another beat", lambda: Worker.objects.get().last_seen_at > seen, 10)


@pytest.mark.parametrize("who", ["sentinel", "worker"])
def test_a_frozen_process_is_replaced(worker: RealWorker, who: str) -> None:
    worker.start(processes=1)
    frozen = worker.sentinel() if who == "sentinel" else worker.workers()[0]
    frozen.suspend()
    if who == "sentinel":
        worker.workers()[0].kill()
    worker.runs_a_task()
    wait_for("the frozen process is gone", lambda: not frozen.is_running())


def test_a_signal_to_the_process_group_lets_a_running_task_end(worker: RealWorker) -> None:
    worker.start()
    ring("default", task=f"{TASKS}.hold")
    wait_for("the task began", lambda: worker.count("began") == 1)
    os.killpg(worker.sentinel().pid, signal.SIGTERM)
    time.sleep(0.5)
    worker.release()
    wait_for("the task ended", lambda: worker.count("ended") == 1)
    worker.runs_a_task()


def test_twenty_kills_at_random_moments_never_stop_the_work(worker: RealWorker) -> None:
    worker.start()
    chance = random.Random(20)
    for _ in range(20):
        ring_many("default", 4, task=f"{TASKS}.note")
        time.sleep(chance.uniform(0, 0.1))
        wait_for("workers are there", lambda: len(worker.workers()) > 0, GOES_ON_WITHIN)
        victim = chance.choice(worker.workers())
        victim.kill()
        worker.runs_a_task()
    worker.process.terminate()
    assert worker.process.wait(10) == 0
    assert worker.left_over() == []


def test_lost_connections_are_made_again(worker: RealWorker) -> None:
    worker.start()
    worker.runs_a_task()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    worker.runs_a_task(8)


def test_a_real_worker_does_what_is_scheduled(worker: RealWorker) -> None:
    worker.start(processes=1)
    wait_for("the schedules are there", Schedule.objects.exists)
    wait_for("they ran", lambda: Figure.objects.filter(name="counted_through").exists(), 60)
    assert not [state.problem for state in schedule_states() if state.problem]
