"""A real worker and real tools that are stopped in the middle of their work."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from provisioning.encryption import decrypt_bytes
from provisioning.models import (
    Deployment,
    Environment,
    LogChunk,
    PossibleOrphan,
    StateVersion,
    Step,
    ToolEvent,
    Worker,
)
from provisioning.models.deployments import TERMINAL_STATUSES
from provisioning.services.deployments import cancel_deployment, retry_deployment
from provisioning.services.people import system_user
from tests.provisioning.place import Place, new_place
from tests.provisioning.queue.conftest import RealWorker, wait_for

pytestmark = pytest.mark.django_db(transaction=True)

# It stays in the tool's group, and notes every SIGINT that the group gets until it is killed.
SPY = """\
import os, signal, sys, time
def note(text):
    with open(sys.argv[1], "a") as ledger:
        ledger.write(text + "\\n")
signal.signal(signal.SIGINT, lambda *_: note("interrupted"))
note(f"process {os.getpid()}")
time.sleep(600)
"""
MODULE = """
variable "folder" { type = string }

resource "terraform_data" "first" {
  provisioner "local-exec" {
    command = "echo first >> ${var.folder}/ledger"
  }
}

resource "terraform_data" "slow" {
  depends_on = [terraform_data.first]
  provisioner "local-exec" {
    command = <<-END
      test -e ${var.folder}/quick && exit 0
      echo "process $$" >> ${var.folder}/ledger
      PYTHON ${var.folder}/spy.py ${var.folder}/ledger > /dev/null 2>&1 &
      sleep 600
    END
  }
}

output "id" { value = terraform_data.slow.id }
"""
# A tool that takes its time to stop, and would note a second order to.
PATIENT = """\
#!/bin/sh
trap 'echo interrupted >> "$1/ledger"' INT
echo "process $$" >> "$1/ledger"
until test -e "$1/stopped"; do sleep 0.02; done
exit 3
"""


@pytest.fixture
def worker(child_environment: dict[str, str], tmp_path: Path) -> Iterator[RealWorker]:
    """Return a worker that runs."""
    real = RealWorker(child_environment, tmp_path / "worker")
    (tmp_path / "worker").mkdir()
    real.start()
    yield real
    real.end()


def lines(folder: Path, word: str) -> list[str]:
    """Return what the tools have noted outside the database, of lines that begin with a word."""
    ledger = folder / "ledger"
    said = ledger.read_text().splitlines() if ledger.exists() else []
    return [line for line in said if line.split()[0] == word]


def ends(deployment: Deployment) -> Deployment:
    """Wait until a deployment has ended."""

    def ended() -> bool:
        deployment.refresh_from_db()
        return deployment.status in TERMINAL_STATUSES

    wait_for("the deployment ended", ended, 60)
    return deployment


def items(deployment: Deployment) -> dict[str, str]:
    """Return what the stored state of the deployment's only resource holds, each with its status."""
    step = deployment.steps.get()
    newest = StateVersion.objects.filter(resource=step.resource_id).latest("number")
    state: dict[str, Any] = json.loads(decrypt_bytes(bytes(newest.data)))
    return {
        resource["name"]: instance.get("status", "complete")
        for resource in state["resources"]
        for instance in resource["instances"]
    }


def nothing_is_left(folder: Path, work: Path) -> None:
    """Look for processes that the tools have started, and for what they leave in their folder."""
    pids = [int(line.split()[1]) for line in lines(folder, "process")]
    assert pids
    assert [pid for pid in pids if psutil.pid_exists(pid)] == []
    assert list(work.glob("**/*.lock.info")) == []


@pytest.fixture
def modules(transactional_db: None, tmp_path: Path) -> Place:
    place = new_place()
    (tmp_path / "spy.py").write_text(SPY)
    content = {"main.tf": MODULE.replace("PYTHON", sys.executable)}
    place.template("module", driver="terraform", outputs={"id": False}, content=content)
    return place


@pytest.mark.terraform
def test_a_cancelled_terraform_leaves_a_whole_state_no_lock_and_no_process(
    modules: Place, worker: RealWorker, tmp_path: Path
) -> None:
    deployment = modules.submit(f"  it:\n    type: module\n    params: {{folder: {tmp_path}}}\n")
    wait_for("the module is at its second part", lambda: len(lines(tmp_path, "process")) == 2, 60)

    for _ in range(2):
        cancel_deployment(deployment=deployment, actor=system_user())

    assert ends(deployment).status == "cancelled"
    assert deployment.steps.get().status == "cancelled"
    assert items(deployment) == {"first": "complete", "slow": "tainted"}
    assert len(lines(tmp_path, "interrupted")) <= 1
    said = "".join(LogChunk.objects.values_list("text", flat=True))
    assert said.count("Interrupt received.") == 1
    assert "Two interrupts received" not in said
    nothing_is_left(tmp_path, tmp_path / "var" / "work")

    (tmp_path / "quick").touch()
    retry = ends(retry_deployment(deployment=deployment, actor=system_user()))

    assert retry.status == "succeeded", retry.status_reason
    assert items(retry) == {"first": "complete", "slow": "complete"}
    assert lines(tmp_path, "first") == ["first"]


@pytest.mark.terraform
def test_what_a_cancelled_terraform_made_is_known_of_a_state_elsewhere_too(
    modules: Place, worker: RealWorker, tmp_path: Path
) -> None:
    Environment.objects.update(state_backend={"type": "local", "path": str(tmp_path / "states")})
    deployment = modules.submit(f"  it:\n    type: module\n    params: {{folder: {tmp_path}}}\n")
    wait_for("the module is at its second part", lambda: len(lines(tmp_path, "process")) == 2, 60)

    cancel_deployment(deployment=deployment, actor=system_user())

    assert ends(deployment).status == "cancelled"
    assert not ToolEvent.objects.exists()
    assert not PossibleOrphan.objects.exists()
    (state,) = (tmp_path / "states").glob("*/terraform.tfstate")
    assert [each["name"] for each in json.loads(state.read_text())["resources"]] == [
        "first",
        "slow",
    ]
    nothing_is_left(tmp_path, tmp_path / "var" / "work")


def patient(folder: Path, **more: Any) -> Place:
    """Return a place with a template whose tool takes its time."""
    place = new_place()
    config = {"command": "run", "args": [str(folder)]}
    place.template("patient", driver="script", config=config, content={"run": PATIENT}, **more)
    return place


def test_a_tool_that_takes_its_time_is_told_once(
    transactional_db: None, worker: RealWorker, tmp_path: Path
) -> None:
    deployment = patient(tmp_path).submit("  it:\n    type: patient\n")
    wait_for("the tool runs", lambda: bool(lines(tmp_path, "process")), 60)

    cancel_deployment(deployment=deployment, actor=system_user())
    wait_for("the tool was told", lambda: bool(lines(tmp_path, "interrupted")))
    cancel_deployment(deployment=deployment, actor=system_user())
    assert deployment.status == "cancelling"
    (tmp_path / "stopped").touch()

    assert ends(deployment).status == "cancelled"
    assert lines(tmp_path, "interrupted") == ["interrupted"]
    nothing_is_left(tmp_path, tmp_path / "var" / "work")


def test_a_tool_that_takes_longer_than_its_template_allows_is_told_once_and_fails(
    transactional_db: None, worker: RealWorker, tmp_path: Path
) -> None:
    deployment = patient(tmp_path, timeout_seconds=2).submit("  it:\n    type: patient\n")
    wait_for("the tool was told", lambda: bool(lines(tmp_path, "interrupted")), 60)
    (tmp_path / "stopped").touch()

    assert ends(deployment).status == "failed"
    step = Step.objects.get()
    assert (step.status, step.attempt, step.error) == (
        "failed",
        1,
        "It took longer than the 2 s that patient-template allows. run was stopped (timed out).",
    )
    assert lines(tmp_path, "interrupted") == ["interrupted"]
    nothing_is_left(tmp_path, tmp_path / "var" / "work")


@pytest.mark.slow
def test_a_draining_worker_follows_the_tool_of_its_process_that_was_killed(
    transactional_db: None, worker: RealWorker, tmp_path: Path
) -> None:
    deployment = patient(tmp_path).submit("  it:\n    type: patient\n")
    wait_for("the tool runs", lambda: bool(lines(tmp_path, "process")), 60)
    Worker.objects.update(draining=True)

    psutil.Process(int(Step.objects.get().process.split()[0])).kill()

    again = Step.objects.filter(attempt=2, status="running")
    wait_for("the step is taken up again", again.exists, 60)
    (tmp_path / "stopped").touch()
    ends(deployment)
    assert lines(tmp_path, "interrupted") == []
    said = "".join(LogChunk.objects.filter(attempt=2).values_list("text", flat=True))
    assert "Following what the attempt before this one began" in said
