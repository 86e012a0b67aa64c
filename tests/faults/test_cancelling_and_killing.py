"""Cancel a deployment and kill its worker, in any order, at random moments."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from provisioning.encryption import decrypt_bytes
from provisioning.models import Deployment, Resource, StateVersion
from provisioning.models.deployments import TERMINAL_STATUSES
from provisioning.services.deployments import (
    NotCancellableError,
    cancel_deployment,
    retry_deployment,
)
from provisioning.services.people import system_user
from tests.faults.test_killing import PARTS, RESOURCES, kill, place, workers
from tests.faults.test_stopping import ends
from tests.provisioning.place import Place
from tests.provisioning.queue.conftest import RealWorker, wait_for

__all__ = ["place", "workers"]

pytestmark = [pytest.mark.terraform, pytest.mark.django_db(transaction=True), pytest.mark.faults]


def wait_for_the_end(deployment: Deployment, told: str, seconds: float = 120) -> None:
    def ended() -> bool:
        deployment.refresh_from_db()
        return deployment.status in TERMINAL_STATUSES

    wait_for(f"deployment {deployment.pk} ended; {told}", ended, seconds)


def one_round(
    place: Place, workers: list[RealWorker], folder: Path, number: int, chance: random.Random
) -> None:
    folder = folder / f"round-{number}"
    folder.mkdir()
    deployment = place.submit(RESOURCES.format(folder=folder), application=f"app-{number}")
    told: list[str] = []

    def cancel() -> None:
        try:
            cancel_deployment(deployment=deployment, actor=system_user())
            told.append("cancelled")
        except NotCancellableError as error:
            told.append(str(error))

    def kill_something() -> None:
        killed = kill(workers[-1], chance)
        told.append(f"killed {killed}")
        if killed in ("everything", "everything but the tools", "the main process"):
            workers[-1].process.wait(10)
            again = RealWorker(workers[-1]._environment, folder)
            workers.append(again)
            again.start()

    acts: list[Callable[[], None]] = [cancel, kill_something]
    chance.shuffle(acts)
    time.sleep(chance.uniform(0.1, 3.0))
    acts[0]()
    time.sleep(chance.choice([0, 0, 0.05, 0.5]))
    acts[1]()
    wait_for_the_end(deployment, f"round {number}: {told}; {workers[-1].said()}")
    assert deployment.status in ("cancelled", "succeeded"), told
    assert ends(deployment) == {deployment.status: 1}, told
    whole = not {"killed a tool", "killed everything"} & {*told}
    if deployment.status == "cancelled":
        if whole:
            check_kept(folder, number, f"round {number}: {told}")
        retry = retry_deployment(deployment=deployment, actor=system_user())
        wait_for_the_end(retry, f"round {number}: {told}, retried; {workers[-1].said()}")
        assert retry.status == "succeeded", f"{told}: {retry.status_reason}"
    made = Resource.objects.filter(created_by__name=f"app-{number}").exclude(state="deleted")
    for resource in made:
        ledger = folder / resource.uid.rsplit(".", 1)[-1]
        check(resource, ledger, f"round {number}: {told}", whole=whole)
    assert not [each for each in psutil.process_iter(["cmdline"]) if works_in(each, folder)]


def works_in(process: psutil.Process, folder: Path) -> bool:
    """Tell whether a process is one of those that the modules start."""
    return any(f"{folder}/" in word for word in process.info["cmdline"] or ())


def check_kept(folder: Path, number: int, told: str) -> None:
    """Hold what the modules noted against the states stored when the cancelled deployment ended."""
    for resource in Resource.objects.filter(created_by__name=f"app-{number}"):
        ledger = folder / resource.uid.rsplit(".", 1)[-1]
        made = set(ledger.read_text().split()) if ledger.exists() else set()
        newest = StateVersion.objects.filter(resource=resource).order_by("number").last()
        stored = decrypt_bytes(bytes(newest.data)).decode() if newest is not None else ""
        assert [id_ for id_ in made if id_ not in stored] == [], f"{told}: {resource.key}"


def check(resource: Resource, ledger: Path, told: str, *, whole: bool) -> None:
    """Compare what the newest state holds with what the module noted outside the database.

    A part that was interrupted just after its note is made anew with another id, and a Terraform
    that is itself killed takes for made what nobody has noted.
    """
    newest = StateVersion.objects.filter(resource=resource).latest("number")
    (part,) = json.loads(decrypt_bytes(bytes(newest.data)))["resources"]
    held = Counter(instance["attributes"]["id"] for instance in part["instances"])
    made = Counter(ledger.read_text().split() if ledger.exists() else ())
    assert resource.state == "active", told
    assert len(held) == PARTS, told
    assert held <= made or not whole, f"{told}: {resource.key}"
    assert max(made.values(), default=1) == 1, f"{told}: {resource.key}"


def test_twenty_deployments_are_cancelled_while_their_workers_die(
    place: Place, workers: list[RealWorker], tmp_path: Path
) -> None:
    seed = random.randrange(10**6)
    print("seed", seed)  # noqa: T201 - shown when the test fails
    for number in range(20):
        one_round(place, workers, tmp_path, number, random.Random(seed + number))
