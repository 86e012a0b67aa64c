"""Thousands of small Terraform deployments, and a fault every now and then.

SOAK is how many deployments there are (10,000), SOAK_FAULT after how many seconds each fault comes (20).
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from django.db import InterfaceError, OperationalError, connection

from provisioning.encryption import decrypt_bytes
from provisioning.models import AuditEvent, Deployment, Resource, StateVersion
from provisioning.models.deployments import TERMINAL_STATUSES
from provisioning.queue.doorbell import ring_many
from tests.provisioning.place import Place, new_place
from tests.provisioning.queue.conftest import RealWorker, title, wait_for

pytestmark = [
    pytest.mark.faults,
    pytest.mark.terraform,
    pytest.mark.django_db(transaction=True),
]

APPLICATIONS = 50
MODULE = """
variable "ledger" { type = string }
variable "number" { type = number }
resource "terraform_data" "it" {
  triggers_replace = var.number
  provisioner "local-exec" { command = "echo ${var.number} ${self.id} >> ${var.ledger}" }
}
output "id" { value = terraform_data.it.id }
"""


@pytest.fixture
def worker(child_environment: dict[str, str], tmp_path: Path) -> Iterator[RealWorker]:
    real = RealWorker(child_environment | {"CONDUCTOR_LEASE_SECONDS": "5"}, tmp_path)
    real.start()
    yield real
    real.end()


class Faults(threading.Thread):
    """Do harm to the worker and the database, one thing at a time, until told to stop."""

    def __init__(self, worker: RealWorker, chance: random.Random, pause: float) -> None:
        super().__init__(daemon=True)
        self.worker, self.chance, self.pause = worker, chance, pause
        self.over = threading.Event()
        self.done: Counter[str] = Counter()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            self._harm()
        except BaseException as error:
            self.failure = error
            raise

    def _harm(self) -> None:
        harms = [
            self.kill_a_process, self.kill_a_supervisor, self.kill_a_tool, self.freeze_a_process,
            self.cut_the_connections, self.ring_for_nothing, self.kill_the_command,
        ]  # fmt: skip
        while not self.over.wait(self.pause):
            harm = self.chance.choice(harms)
            with suppress(psutil.Error, OperationalError, InterfaceError, IndexError):
                harm()
                self.done[harm.__name__] += 1
        connection.close()

    def kill_a_process(self) -> None:
        self.chance.choice(self.worker.workers()).kill()

    def kill_a_supervisor(self) -> None:
        self.chance.choice(self._supervisors()).kill()

    def kill_a_tool(self) -> None:
        supervisors = self._supervisors()
        started = [child for each in supervisors for child in each.children()]
        tool = self.chance.choice([each for each in started if each not in supervisors])
        for process in (*tool.children(), tool):
            process.kill()

    def freeze_a_process(self) -> None:
        process = self.chance.choice(self.worker.workers())
        process.send_signal(signal.SIGSTOP)
        time.sleep(8)
        process.send_signal(signal.SIGCONT)

    def cut_the_connections(self) -> None:
        """Do to everybody's connections what a restart of the database does."""
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    def ring_for_nothing(self) -> None:
        ring_many("default", 8)

    def kill_the_command(self) -> None:
        for process in self.worker.everything():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.worker.process.wait(10)
        self.worker.start()

    def _supervisors(self) -> list[psutil.Process]:
        return [each for each in self.worker.everything() if "supervisor.py" in title(each)]


def test_nothing_is_lost_and_nothing_done_twice(worker: RealWorker, tmp_path: Path) -> None:
    wanted = int(os.environ.get("SOAK", "10000"))
    place = new_place()
    place.template("bit", driver="terraform", outputs={"id": False}, content={"main.tf": MODULE})
    seed = random.randrange(10**6)
    faults = Faults(worker, random.Random(seed), float(os.environ.get("SOAK_FAULT", "20")))
    faults.start()
    began = time.monotonic()
    try:
        for number in range(wanted):
            submit(place, tmp_path, number)
        wait_for("all deployments ended", lambda: not unfinished(), 300)
    finally:
        faults.over.set()
        faults.join(60)
    took = time.monotonic() - began
    print(f"\nseed {seed}: {wanted} deployments in {took:.0f} s, faults {dict(faults.done)}")  # noqa: T201
    assert faults.failure is None
    check(tmp_path, wanted, faults.done)


def submit(place: Place, folder: Path, number: int) -> None:
    """Let an application make its resource anew, once its last deployment has ended."""
    application = f"app-{number % APPLICATIONS}"
    params = f"{{ledger: '{folder}/{application}', number: {number}}}"
    while True:
        try:
            wait_for("its last one ended", lambda: not unfinished(application), 120)
            place.submit(f"  bit: {{type: bit, params: {params}}}\n", application=application)
            return
        except (OperationalError, InterfaceError):
            connection.close()
            if Resource.objects.filter(params__number=number).exists():
                return


def unfinished(application: str = "") -> bool:
    rows = Deployment.objects.exclude(status__in=TERMINAL_STATUSES)
    try:
        return (rows.filter(application__name=application) if application else rows).exists()
    except (OperationalError, InterfaceError):
        connection.close()
        return True


def check(folder: Path, wanted: int, faults: Counter[str]) -> None:
    """Hold the rows against each other and against what the modules noted outside."""
    statuses = Counter(Deployment.objects.values_list("status", flat=True))
    assert statuses == {"succeeded": wanted}, list(
        Deployment.objects.exclude(status="succeeded").values_list("pk", "status_reason")[:5]
    )
    ends = AuditEvent.objects.filter(
        subject_type="deployment", new_status__in=[status.value for status in TERMINAL_STATUSES]
    )
    assert Counter(ends.values_list("subject_id", flat=True)).most_common(1)[0][1] == 1
    assert ends.count() == wanted
    noted: Counter[int] = Counter()
    doubtful: set[int] = set()  # what a killed tool may have made besides, and that is told
    for resource in Resource.objects.all():
        lines = [
            line.split() for line in (folder / resource.created_by.name).read_text().split("\n")
        ]
        numbers = [int(line[0]) for line in lines if line]
        noted.update(numbers)
        if resource.possible_orphans.exists():
            doubtful.update(numbers)
        newest = StateVersion.objects.filter(resource=resource).latest("number")
        state = json.loads(decrypt_bytes(bytes(newest.data)))
        (item,) = [each for part in state["resources"] for each in part["instances"]]
        assert resource.state == "active"
        assert "status" not in item
        assert item["attributes"]["triggers_replace"]["value"] == resource.params["number"]
    killed = faults["kill_a_tool"] + faults["kill_the_command"]
    twice = {number for number, times in noted.items() if times > 1}
    assert twice <= doubtful
    assert len(twice) <= killed * 2
    # A killed Terraform may have taken for made what it was only making.
    assert wanted - len(noted) <= killed * 2
