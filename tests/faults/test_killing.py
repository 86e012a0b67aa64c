"""Kill workers, supervisors and tools in the middle of a deployment, at random moments."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from provisioning.encryption import decrypt_bytes
from provisioning.models import Deployment, Resource, StateVersion
from provisioning.models.deployments import TERMINAL_STATUSES
from tests.provisioning.place import Place, new_place
from tests.provisioning.queue.conftest import RealWorker, title, wait_for

pytestmark = [pytest.mark.terraform, pytest.mark.django_db(transaction=True)]

PARTS = 3
MODULE = """
variable "ledger" { type = string }
variable "of" { default = "" }

resource "terraform_data" "part" {
  count = 3
  input = var.of
  provisioner "local-exec" {
    command = "sleep 0.2 && echo ${self.id} >> ${var.ledger}"
  }
}

output "id" { value = terraform_data.part[0].id }
"""
RESOURCES = """\
  base:
    type: parts
    params: {{ledger: '{folder}/base'}}
  side:
    type: parts
    params: {{ledger: '{folder}/side'}}
  top:
    type: parts
    params: {{ledger: '{folder}/top', of: '${{resources.base.id}}'}}
"""


@pytest.fixture
def place(transactional_db: None) -> Place:
    place = new_place()
    place.template("parts", driver="terraform", outputs={"id": False}, content={"main.tf": MODULE})
    return place


@pytest.fixture
def workers(child_environment: dict[str, str], tmp_path: Path) -> Iterator[list[RealWorker]]:
    """Return the workers started so far, with one that runs; what is left of them is killed."""
    environment = child_environment | {"CONDUCTOR_LEASE_SECONDS": "2"}
    started: list[RealWorker] = [RealWorker(environment, tmp_path)]
    started[0].start()
    yield started
    for worker in started:
        worker.end()


def kill(worker: RealWorker, chance: random.Random) -> str:
    """Kill the whole command, its main process, one that works, a supervisor, a tool, or all."""
    everything = worker.everything()
    supervisors = [each for each in everything if "supervisor.py" in title(each)]
    tools = [child for each in supervisors for child in children(each) if child not in supervisors]
    victims: dict[str, list[psutil.Process]] = {
        "everything but the tools": [each for each in everything if each not in tools],
        "everything": everything,
        "the main process": [worker.main],
        "one process": [chance.choice(worker.workers())],
        "a supervisor": chance.sample(supervisors, min(1, len(supervisors))),
        # With what it runs: a provisioner would go on and note what no state can know of.
        "a tool": [*tools[:1], *(each for tool in tools[:1] for each in children(tool))],
    }
    choice = chance.choice(sorted(name for name, chosen in victims.items() if chosen))
    for process in victims[choice]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return choice


def children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children()
    except psutil.NoSuchProcess:
        return []


def one_round(
    place: Place, workers: list[RealWorker], folder: Path, number: int, chance: random.Random
) -> None:
    folder = folder / f"round-{number}"
    folder.mkdir()
    deployment = place.submit(RESOURCES.format(folder=folder), application=f"app-{number}")
    delay = chance.uniform(0.1, 4.0)
    time.sleep(delay)
    killed = kill(workers[-1], chance)
    told = f"round {number}: killed {killed} after {delay:.2f} s"
    if killed in ("everything", "everything but the tools", "the main process"):
        workers[-1].process.wait(10)
        again = RealWorker(workers[-1]._environment, folder)
        workers.append(again)
        again.start()
    wait_for(
        f"the deployment ended; {told}; {workers[-1].said()}",
        lambda: Deployment.objects.get(pk=deployment.pk).status in TERMINAL_STATUSES,
        60,
    )
    deployment.refresh_from_db()
    assert deployment.status == "succeeded", f"{told}: {deployment.status_reason}"
    for resource in Resource.objects.filter(created_by__name=f"app-{number}"):
        ledger = folder / resource.uid.rsplit(".", 1)[-1]
        check(resource, ledger, told, killed)


def check(resource: Resource, ledger: Path, told: str, killed: str) -> None:
    """Compare what the newest state holds with what the module noted outside the database.

    A Terraform that is itself killed may have made what its state does not hold: that is told. One that
    is only interrupted leaves nothing out, and may take for made what has not been noted any more.
    """
    newest = StateVersion.objects.filter(resource=resource).latest("number")
    state = json.loads(decrypt_bytes(bytes(newest.data)))
    (part,) = state["resources"]
    held = Counter(instance["attributes"]["id"] for instance in part["instances"])
    made = Counter(ledger.read_text().split())
    assert resource.state == "active", told
    said = f"{told}: {resource.key}: noted {made}, in the state {held}"
    told_of = resource.possible_orphans.count() if killed in ("a tool", "everything") else 0
    assert (made - held).total() <= told_of, f"{said}, told of {told_of}"
    assert max(made.values()) == 1, said
    if killed in ("one process", "the main process"):  # whose tools go on as if nothing had been
        assert made == held, said
    assert len(held) == PARTS, told
    assert not any("status" in instance for instance in part["instances"]), told


def test_a_deployment_survives_its_worker(
    place: Place, workers: list[RealWorker], tmp_path: Path
) -> None:
    seed = random.randrange(10**6)
    print("seed", seed)  # noqa: T201 - shown when the test fails
    one_round(place, workers, tmp_path, 0, random.Random(seed))


@pytest.mark.faults
def test_many_deployments_survive_their_workers(
    place: Place, workers: list[RealWorker], tmp_path: Path
) -> None:
    seed = random.randrange(10**6)
    print("seed", seed)  # noqa: T201 - shown when the test fails
    for number in range(int(os.environ.get("KILLS", "200"))):
        one_round(place, workers, tmp_path, number, random.Random(seed + number))
