"""Kill Terraform while a real provider makes things: what its state does not hold is told."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from provisioning.models import AuditEvent, Deployment, PossibleOrphan, Resource, StateVersion
from provisioning.models.deployments import TERMINAL_STATUSES
from provisioning.services.state.versions import content_of
from provisioning.workers.sweeper import MOST_LOSSES
from tests.ledger import SOURCE, lay_mirror
from tests.provisioning.place import Place, new_place
from tests.provisioning.queue.conftest import RealWorker, wait_for

pytestmark = [pytest.mark.terraform, pytest.mark.django_db(transaction=True)]

MODULE = f"""
terraform {{
  required_providers {{ ledger = {{ source = "{SOURCE}" }} }}
}}
variable "ledger" {{ type = string }}
variable "seconds" {{ type = list(number) }}
resource "ledger_thing" "part" {{
  count   = length(var.seconds)
  ledger  = var.ledger
  name    = "part-${{count.index}}"
  seconds = var.seconds[count.index]
}}
"""
ASKED = "  things:\n    type: things\n    params: {{ledger: '{ledger}', seconds: {seconds}}}\n"


@pytest.fixture
def place(transactional_db: None) -> Place:
    place = new_place()
    place.template("things", driver="terraform", content={"main.tf": MODULE})
    return place


@pytest.fixture
def worker(child_environment: dict[str, str], tmp_path: Path) -> Iterator[RealWorker]:
    provider = {
        "CONDUCTOR_TERRAFORM_MIRROR": str(lay_mirror(tmp_path / "mirror")),
        "CONDUCTOR_TERRAFORM_HOSTS": SOURCE.partition("/")[0],
    }
    worker = RealWorker(child_environment | provider | {"CONDUCTOR_LEASE_SECONDS": "2"}, tmp_path)
    worker.start()
    yield worker
    worker.end()


def made(ledger: Path) -> dict[str, str]:
    """Return the names of what was ever made, by id."""
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    return {id_: name for sign, name, id_ in (line.split() for line in lines) if sign == "+"}


def kill_tools(worker: RealWorker) -> int:
    """Kill every Terraform of a worker with its providers; return how many processes that were."""
    killed = 0
    for process in worker.everything():
        with suppress(psutil.Error):
            if "terraform" in process.name():
                process.kill()
                killed += 1
    return killed


def held(resource: Resource) -> set[str]:
    newest = StateVersion.objects.filter(resource=resource).order_by("number").last()
    state = json.loads(content_of(newest)) if newest is not None else {"resources": []}
    found = (each for part in state["resources"] for each in part["instances"])
    return {each["attributes"]["id"] for each in found}


def ended(deployment: Deployment, worker: RealWorker) -> Deployment:
    wait_for(
        f"the deployment ended; {worker.said()}",
        lambda: Deployment.objects.get(pk=deployment.pk).status in TERMINAL_STATUSES,
        60,
    )
    deployment.refresh_from_db()
    return deployment


@pytest.mark.slow
def test_what_a_killed_terraform_was_making_is_told(
    place: Place, worker: RealWorker, tmp_path: Path
) -> None:
    ledger = tmp_path / "things"
    deployment = place.submit(ASKED.format(ledger=ledger, seconds=[0, 2]))
    wait_for("both are begun", lambda: len(made(ledger)) == 2, 30)
    wait_for("one is in the state", lambda: StateVersion.objects.exists(), 10)
    first = {name: id_ for id_, name in made(ledger).items()}

    assert kill_tools(worker)

    assert ended(deployment, worker).status == "succeeded", deployment.status_reason
    (resource,) = Resource.objects.all()
    assert first["part-0"] in held(resource)
    assert set(made(ledger)) - held(resource) == {first["part-1"]}
    (orphan,) = PossibleOrphan.objects.all()
    assert (orphan.address, orphan.id_value) == ("ledger_thing.part[1]", "")
    (event,) = AuditEvent.objects.filter(action="orphans.suspected")
    assert event.reason == "ledger_thing.part[1] [id unknown]."


@pytest.mark.faults
def test_nothing_that_was_made_is_neither_in_the_state_nor_told(
    place: Place, worker: RealWorker, tmp_path: Path
) -> None:
    seed = random.randrange(10**6)
    print("seed", seed)  # noqa: T201 - shown when the test fails
    missing = 0
    for number in range(max(1, int(os.environ.get("KILLS", "200")) // 10)):
        chance = random.Random(seed + number)
        ledger = tmp_path / f"round-{number}"
        seconds = [round(chance.uniform(0, 1), 2) for _ in range(4)]
        asked = ASKED.format(ledger=ledger, seconds=seconds)
        deployment = place.submit(asked, application=f"app-{number}")
        for _ in range(chance.randrange(1, MOST_LOSSES)):
            time.sleep(chance.uniform(0.3, 3))
            kill_tools(worker)
        ended(deployment, worker)
        for resource in Resource.objects.filter(created_by__name=f"app-{number}"):
            lost = {name for id_, name in made(ledger).items() if id_ not in held(resource)}
            told = set(resource.possible_orphans.values_list("address", flat=True))
            addresses = {f"ledger_thing.part[{name.removeprefix('part-')}]" for name in lost}
            assert addresses <= told, f"round {number}: {lost} are lost, {told} are told"
            missing += len(lost)
    assert missing  # else no moment was the right one
