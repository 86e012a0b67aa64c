"""Joins, leaves, answers, revocations, updates and destructions in whatever order they come."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.utils import timezone

from provisioning.models import (
    Approval,
    AuditEvent,
    Deployment,
    Resource,
    ResourceConsumer,
    ResourceDependency,
    Step,
)
from provisioning.models.deployments import TERMINAL_STATUSES
from provisioning.models.steps import UNFINISHED_STEP_STATUSES
from provisioning.services.outputs import not_taken_back
from provisioning.workers import runner
from provisioning.workers.tasks import work
from tests.faults.crowd import APPLICATIONS, Somebody, populate
from tests.faults.diary import Diary
from tests.faults.model import Model
from tests.faults.test_racing import race
from tests.provisioning.place import QUEUE, Place, chores, new_place

pytestmark = pytest.mark.django_db(transaction=True)

ASKING = ("pending_approval", "pending_confirmation")


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file in which the driver notes what it did."""
    path = tmp_path / "ledger"
    path.touch()
    monkeypatch.setenv("CONDUCTOR_FAKE_LEDGER", str(path))
    return path


@pytest.fixture
def place(
    transactional_db: None,
    tmp_path: Path,
    settings: LazySettings,
    monkeypatch: pytest.MonkeyPatch,
    ledger: Path,
) -> Place:
    """Return an organisation of eight teams whose wishes for one resource are merged."""
    settings.VAR_DIR = tmp_path / "var"
    settings.CONDUCTOR_WORK_DIR = tmp_path / "work"
    monkeypatch.setattr(runner, "RETRY_SECONDS", (0.0, 0.0))
    place = new_place()
    place.template(
        "cache",
        outputs={"host": False, "password": True},
        config={"wait": 0.01, "own": ["password"]},
        merge_rules={"size": {"rule": "maximum"}},
        uses=["consumers"],
    )
    place.template("box", outputs={"host": False})
    populate(place)
    return place


@pytest.fixture
def diary(tmp_path: Path) -> Diary:
    path = tmp_path / "diary"
    path.touch()
    return Diary(path)


def live_together(
    place: Place, diary: Diary, ledger: Path, *, seed: int, processes: int, steps: int, rounds: int
) -> None:
    """Let so many processes do so many things in all, and compare what came of it.

    After each round all work is done, and what is there is compared with the model.
    """
    for round_ in range(rounds):

        def racer(number: int, round_: int = round_) -> None:
            chance = random.Random(f"{seed} {round_} {number}")
            Somebody(place, diary, ledger, chance).live(steps // processes // rounds)

        race(racer, processes, seconds=900)
        settle()
        check_the_settled(ledger)
        model = Model(diary)
        model.check_all()
        model.check_now()
        check_counts(diary)
    assert any(look["got"] for look in diary.entries("look"))

    for application in APPLICATIONS:
        assert place.teardown(application).status == "succeeded"
    settle()
    assert set(Resource.objects.values_list("state", flat=True)) == {"deleted"}
    assert not ResourceConsumer.objects.filter(state__in=["active", "pending"]).exists()
    check_the_settled(ledger)


def settle() -> None:
    """Do all the work that is left, what the sweeper finds, and what is tried again after a while."""
    for _ in range(4):
        work(QUEUE)
        ended = Step.objects.filter(finished_at__isnull=False)
        ended.update(finished_at=timezone.now() - timedelta(hours=2))
        chores()
    work(QUEUE)


def check_the_settled(ledger: Path) -> None:
    """Check what has to hold whenever there is nothing left to do."""
    assert not Step.objects.filter(status__in=UNFINISHED_STEP_STATUSES).exists()
    open_ = Deployment.objects.exclude(status__in=[*TERMINAL_STATUSES, *ASKING])
    assert list(open_.values_list("pk", "status", "status_reason")) == []
    active = ResourceConsumer.objects.filter(state="active")
    held = set(active.values_list("resource", flat=True))
    live = {each.pk: each for each in Resource.objects.exclude(state="deleted")}
    held |= set(ResourceDependency.objects.filter(source__in=live).values_list("target", flat=True))
    assert held <= live.keys(), "a destroyed resource is used"
    leaked = [(str(each), each.state) for pk, each in live.items() if pk not in held]
    assert leaked == [], "a resource that nobody holds is left"
    check_ledger(ledger)
    check_ends()
    check_edges()
    check_credentials()


def check_credentials() -> None:
    """Check that each user of a cache has a password of its own, and nobody else."""
    assert not not_taken_back().exists()
    used = ResourceConsumer.objects.filter(state="active", resource__type="cache")
    without = used.filter(own_outputs=None, resource__state="active")
    assert list(without.values_list("alias", "resource__key")) == []
    edges = ResourceDependency.objects.filter(kind="output", target__type="cache")
    for edge in edges.filter(target__state="active"):
        assert edge.source.own_outputs.filter(resource=edge.target).exists(), str(edge)


def check_ledger(ledger: Path) -> None:
    """Compare what the driver did with what is said to be there."""
    done: dict[str, list[str]] = defaultdict(list)
    for line in ledger.read_text().splitlines():
        action, id_, *_ = line.split()
        done[id_].append(action)
    for resource in Resource.objects.all():
        actions = done.pop(str(resource.pk), [])
        gone = resource.state == "deleted"
        assert actions.count("destroy") == (1 if gone and actions else 0), f"{resource}: {actions}"
        assert not gone or not actions or actions[-1] == "destroy", f"{resource}: {actions}"
        steps = resource.steps.order_by("pk").values_list("action", "status", "losses", "error")
        assert gone or "create" in actions, f"{resource} is {resource.state}: {list(steps)}"
    assert done == {}, "the driver made what is not stored"


def check_ends() -> None:
    """Check that each deployment has ended once, as the audit trail tells."""
    ends = AuditEvent.objects.filter(subject_type="deployment", new_status__in=TERMINAL_STATUSES)
    told = Counter(ends.values_list("subject_id", "new_status"))
    ended = Deployment.objects.filter(status__in=TERMINAL_STATUSES)
    assert told == Counter((str(pk), status) for pk, status in ended.values_list("pk", "status"))


def check_edges() -> None:
    """Check that who follows a resource of another application uses it."""
    for edge in ResourceDependency.objects.filter(source__key__startswith="private/"):
        assert ResourceConsumer.objects.filter(
            resource=edge.target, state="active", workload__application=edge.source.created_by
        ).exists(), f"{edge.source} follows {edge.target}"


def check_counts(diary: Diary) -> None:
    """Compare the rows with what was done."""
    said = {name: diary.entries(name) for name in ("approve", "reject", "withdraw", "revoke")}
    rows = Deployment.objects.all()
    counts = {
        "deploy": rows.filter(kind="deploy").count(),
        "teardown": rows.filter(kind="teardown").count(),
        "destroy": rows.filter(
            requested_by__isnull=False, kind="maintenance", forced=False
        ).count(),
        "force": rows.filter(kind="maintenance", forced=True).count(),
        "approve": Approval.objects.filter(status="approved").count(),
        "reject": Approval.objects.filter(status="rejected").count(),
        "withdraw": rows.filter(status="cancelled").count(),
        "revoke": ResourceConsumer.objects.filter(state="revoked").count(),
    }
    assert counts == {name: len(diary.entries(name)) for name in counts}
    assert {each["deployment"] for each in said["reject"]} == set(
        rows.filter(status="rejected").values_list("pk", flat=True)
    )
    assert {each["consumer"] for each in said["revoke"]} == set(
        ResourceConsumer.objects.filter(state="revoked").values_list("pk", flat=True)
    )


def test_whatever_a_few_do_at_once_leaves_all_in_order(
    place: Place, diary: Diary, ledger: Path
) -> None:
    live_together(place, diary, ledger, seed=1, processes=3, steps=30, rounds=1)


@pytest.mark.faults
@pytest.mark.parametrize("seed", [11, 22, 33])
def test_whatever_many_do_at_once_leaves_all_in_order(
    place: Place, diary: Diary, ledger: Path, seed: int
) -> None:
    live_together(place, diary, ledger, seed=seed, processes=8, steps=2000, rounds=5)
    told = Counter((task, refusal.split(":")[0]) for task, refusal in diary.refusals())
    print(sorted(told.items()))  # noqa: T201 - shown with `-s`
