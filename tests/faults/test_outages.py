"""What all workers share goes away in the middle of an apply: the machine, or the database."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection

from provisioning.drivers.folders import control_folder, lease_file, said_folder
from provisioning.drivers.tool import MARK
from provisioning.models import (
    AuditEvent,
    Deployment,
    PossibleOrphan,
    Resource,
    StateLock,
    StateVersion,
    Step,
)
from provisioning.models.deployments import TERMINAL_STATUSES
from provisioning.services.state.versions import content_of
from tests.provisioning.place import Place, new_place
from tests.provisioning.queue.conftest import RealWorker, wait_for

pytestmark = [
    pytest.mark.faults,
    pytest.mark.terraform,
    pytest.mark.django_db(transaction=True),
]

PARTS = 8
MODULE = """
variable "ledger" { type = string }
resource "terraform_data" "first" {}
resource "terraform_data" "part" {
  count = 8
  input = terraform_data.first.id
  provisioner "local-exec" {
    command = "sleep ${(count.index + 1) * 0.5}; echo ${self.id} >> ${var.ledger}"
  }
}
"""


@pytest.fixture
def worker(child_environment: dict[str, str], tmp_path: Path) -> Iterator[RealWorker]:
    real = RealWorker(child_environment | {"CONDUCTOR_LEASE_SECONDS": "5"}, tmp_path)
    real.start()
    yield real
    real.end()


def begun(worker: RealWorker, ledger: Path) -> Deployment:
    """Submit a deployment, and wait until its tool is in the middle of its work."""
    place: Place = new_place()
    place.template("parts", driver="terraform", content={"main.tf": MODULE})
    deployment = place.submit(f"  it: {{type: parts, params: {{ledger: '{ledger}'}}}}\n")
    wait_for(f"the apply is half done; {worker.said()}", ledger.exists, 60)
    return deployment


def ended(deployment: Deployment) -> bool:
    try:
        return Deployment.objects.get(pk=deployment.pk).status in TERMINAL_STATUSES
    except (OperationalError, InterfaceError):
        connection.close()
        return False


def tools_of(folder: Path) -> list[psutil.Process]:
    """Return the processes that run for a work folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == str(folder):
                found.append(process)
    return found


def check(deployment: Deployment, ledger: Path, folder: Path, *, noted_whole: bool) -> None:
    """Hold the end against what must be true after every fault."""
    deployment.refresh_from_db()
    assert deployment.status == "succeeded", deployment.status_reason
    terminal = [status.value for status in TERMINAL_STATUSES]
    ends = AuditEvent.objects.filter(subject_type="deployment", new_status__in=terminal)
    assert [each.new_status for each in ends] == ["succeeded"]
    step = deployment.steps.get()
    moves = AuditEvent.objects.filter(subject_type="step", subject_id=str(step.pk)).order_by("pk")
    statuses = [(each.old_status, each.new_status) for each in moves if each.new_status]
    assert statuses[-1] == ("running", "succeeded")
    assert all(left[1] == right[0] for left, right in pairwise(statuses))
    assert not StateLock.objects.exists()
    state = json.loads(content_of(StateVersion.objects.latest("number")))
    (parts,) = [each for each in state["resources"] if each["name"] == "part"]
    held = {each["attributes"]["id"] for each in parts["instances"]}
    made = ledger.read_text().split()
    assert len(held) == PARTS
    told_of = PossibleOrphan.objects.count()
    assert {*made} == held if noted_whole else len({*made} - held) <= told_of
    assert len({*made}) == len(made)
    assert tools_of(folder) == []


def test_a_machine_that_starts_again_goes_on_from_its_folder(
    worker: RealWorker, tmp_path: Path
) -> None:
    ledger = tmp_path / "module-ledger"
    deployment = begun(worker, ledger)
    folder = tmp_path / "var" / "work" / str(Resource.objects.get().pk)
    for process in {*worker.everything(), *tools_of(folder)}:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    worker.process.wait(10)
    wait_for("nothing of it runs", lambda: tools_of(folder) == [])
    # The clock that leases are written by begins anew, and so do the numbers of processes.
    lease_file(folder).write_text(f"{time.monotonic() + 10**7:020.3f}\n")
    (control_folder(folder) / "holder").write_text(f"{os.getpid()} 1@before")
    (said_folder(folder) / "tool").write_text(str(os.getpid()))
    Step.objects.filter(deployment=deployment).update(process=f"{os.getpid()} 1@before")

    again = RealWorker(worker._environment, tmp_path / "again")
    (tmp_path / "again").mkdir()
    again.start()
    try:
        wait_for(f"it ended; {again.said()}", lambda: ended(deployment), 60)
    finally:
        again.end()

    check(deployment, ledger, folder, noted_whole=False)
    assert AuditEvent.objects.filter(action="step.recovering").exists()


def test_an_apply_goes_on_while_postgresql_starts_again(worker: RealWorker, tmp_path: Path) -> None:
    server = settings.EMBEDDED_SERVER
    if server is None:
        pytest.skip("only the server that comes along may be restarted")
    ledger = tmp_path / "module-ledger"
    deployment = begun(worker, ledger)
    folder = tmp_path / "var" / "work" / str(Resource.objects.get().pk)

    connection.close()
    server.stop()
    time.sleep(1)
    server.ensure()

    wait_for(f"it ended; {worker.said()}", lambda: ended(deployment), 60)
    check(deployment, ledger, folder, noted_whole=True)
    assert Step.objects.get(deployment=deployment).losses == 0
