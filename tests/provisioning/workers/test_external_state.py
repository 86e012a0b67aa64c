from __future__ import annotations

import socket
from dataclasses import replace
from datetime import timedelta

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.db.models.functions import Now
from django.utils import timezone

from provisioning.drivers.base import LeaseLostError
from provisioning.drivers.external_state import Event, Orphan
from provisioning.models import (
    AuditEvent,
    PossibleOrphan,
    Resource,
    Step,
    ToolEvent,
    Worker,
)
from provisioning.services.people import NotAllowedError
from provisioning.services.state.events import NoReasonError, dismiss_orphans, list_orphans
from provisioning.workers.run import StepRun
from provisioning.workers.tasks import claim
from tests.provisioning.place import Place

MADE = [
    Event("apply_start", "create", "thing.a", "thing"),
    Event("apply_complete", "create", "thing.a", "thing", "id", "i-1"),
]
A = Orphan("thing.a", "thing", "id", "i-1")
HOLDING_A = (
    b'{"serial": 1, "lineage": "a", "resources": [{"mode": "managed", "type": "thing", "name": "a",'
    b' "instances": [{"attributes": {"id": "i-1"}}]}]}'
)


@pytest.fixture
def run(place: Place) -> StepRun:
    place.template("thing", driver="terraform")
    place.submit("  thing:\n    type: thing\n")
    return next_run()


def next_run() -> StepRun:
    step = claim("default")
    assert step is not None
    return StepRun(step, lost=lambda: False, driver="terraform")


def lose() -> None:
    """Take the step from its worker."""
    Step.objects.update(status="pending", lease_until=None, losses=1)


def test_the_tool_is_given_an_address_and_a_token_of_its_own(
    run: StepRun, settings: LazySettings
) -> None:
    settings.CONDUCTOR_URL = "https://conductor.example"
    access = run.external_state.open()
    assert access.address == f"https://conductor.example/api/state/{Resource.objects.get().pk}"
    assert access.username == "run"
    assert access.password not in repr(access)
    assert Step.objects.get().tool_attempt == 1


def test_what_a_killed_tool_made_is_suspected_until_a_state_holds_it(run: StepRun) -> None:
    external = run.external_state
    external.open()
    external.note(MADE, 0)
    assert external.settle(None, killed=True) == [A]
    assert not ToolEvent.objects.exists()
    assert external.settle(None, killed=False) == [A]
    assert list_orphans(resource=Resource.objects.get()) == [A]
    event = AuditEvent.objects.get(action="orphans.suspected")
    assert event.reason == "thing.a [i-1]."
    assert external.settle(HOLDING_A, killed=False) == []
    assert not PossibleOrphan.objects.exists()


def test_an_attempt_that_follows_hears_everything_again_and_stores_it_once(run: StepRun) -> None:
    run.external_state.open()
    run.external_state.note(MADE, 0)
    lose()
    following = next_run()
    following.external_state.note(MADE[:1], 0)
    following.external_state.note(MADE[1:], 1)
    assert list(ToolEvent.objects.values_list("attempt", "sequence")) == [(1, 0), (1, 1)]


def test_the_next_tool_counts_anew(run: StepRun) -> None:
    run.external_state.open()
    run.external_state.note(MADE[:1], 0)
    lose()
    again = next_run()
    again.external_state.open()
    again.external_state.note(MADE, 0)
    rows = ToolEvent.objects.values_list("attempt", "sequence").order_by("pk")
    assert list(rows) == [(1, 0), (2, 0), (2, 1)]
    assert again.external_state.settle(HOLDING_A, killed=True) == []


def test_what_was_begun_again_and_again_is_suspected_once(run: StepRun) -> None:
    external = run.external_state
    external.open()
    unknown = Orphan("thing.a", "thing")
    external.note(MADE[:1], 0)
    assert external.settle(None, killed=True) == [unknown]
    external.note([*MADE, MADE[0]], 1)
    external.settle(HOLDING_A, killed=True)
    assert list_orphans(resource=Resource.objects.get()) == [replace(unknown, remade=True)]


def test_a_lost_attempt_writes_nothing(run: StepRun) -> None:
    run.external_state.open()
    run.external_state.note(MADE[:1], 0)
    lose()
    next_run()
    for act in (
        run.external_state.open,
        lambda: run.external_state.note(MADE, 0),
        lambda: run.external_state.settle(None, killed=True),
    ):
        with pytest.raises(LeaseLostError):
            act()
    assert ToolEvent.objects.count() == 1
    assert not PossibleOrphan.objects.exists()


def test_an_id_that_is_a_secret_is_not_stored(run: StepRun) -> None:
    run.mask("i-1-is-secret")
    run.external_state.open()
    event = Event(
        "apply_complete", "create", 'thing.a["i-1-is-secret"]', "thing", "id", "i-1-is-secret"
    )
    run.external_state.note([event], 0)
    stored = ToolEvent.objects.get()
    assert (stored.id_value, "i-1-is-secret" in stored.address) == ("", False)


def test_an_owner_dismisses_with_a_reason(run: StepRun, charlie: User, alice: User) -> None:
    run.external_state.open()
    run.external_state.note(MADE, 0)
    run.external_state.settle(None, killed=True)
    resource = Resource.objects.get()
    charlie.is_staff = True
    with pytest.raises(NotAllowedError):
        dismiss_orphans(resource=resource, reason="x", actor=alice)
    with pytest.raises(NoReasonError):
        dismiss_orphans(resource=resource, reason=" ", actor=charlie)
    assert list_orphans(resource=resource) == [A]
    assert dismiss_orphans(resource=resource, reason="Deleted by hand.", actor=charlie) == [A]
    assert list_orphans(resource=resource) == []
    event = AuditEvent.objects.get(action="orphans.dismissed")
    assert (event.actor, event.reason) == ("charlie", "Deleted by hand. thing.a [i-1].")


def test_a_lock_is_left_by_a_dead_run_if_a_worker_made_it_while_a_step_ran(run: StepRun) -> None:
    run.external_state.open()
    Step.objects.update(started_at=timezone.now() - timedelta(hours=1))
    now, who = timezone.now(), f"root@{socket.gethostname()}"
    is_left = run.external_state.is_left_lock
    assert is_left(who, now)
    assert not is_left(who, now - timedelta(hours=2))
    assert not is_left("root@laptop", now)
    Worker.objects.create(host="laptop", pid=1, last_seen_at=Now())
    assert is_left("root@laptop", now)
    Step.objects.update(finished_at=now - timedelta(minutes=30))
    assert not is_left(who, now)
    assert is_left(who, now - timedelta(minutes=40))
