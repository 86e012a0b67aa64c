from __future__ import annotations

import itertools

import pytest
from django.db import transaction

from provisioning.models import (
    AuditEvent,
    Deployment,
    DeploymentStatus,
    Resource,
    ResourceConsumer,
    ResourceState,
    Step,
    StepStatus,
)
from provisioning.models.deployments import TERMINAL_STATUSES
from provisioning.services import transitions
from provisioning.services.transitions import ALLOWED, InvalidTransitionError, move, move_all
from provisioning.workers.tasks import claim
from tests.provisioning.place import Place

STATUSES = {
    Deployment: DeploymentStatus.values,
    Step: StepStatus.values,
    Resource: ResourceState.values,
}


@pytest.fixture
def step(place: Place) -> Step:
    """Return a claimed step."""
    place.template("part")
    place.submit("  one:\n    type: part\n")
    step = claim("default")
    assert step is not None
    return step


def subject(step: Step, model: type[Deployment | Step | Resource]) -> Deployment | Step | Resource:
    return {Deployment: step.deployment, Step: step, Resource: step.resource}[model]


FORBIDDEN = [
    (model, old, new)
    for model, statuses in STATUSES.items()
    for old, new in itertools.product(statuses, statuses)
    if new not in ALLOWED[model].get(old, ())
]


@pytest.mark.parametrize("model", STATUSES)
def test_what_the_table_does_not_allow_is_refused(
    step: Step, model: type[Deployment | Step | Resource]
) -> None:
    before = AuditEvent.objects.count()
    name = "state" if model is Resource else "status"
    row = subject(step, model)
    stored = getattr(row, name)
    refused = 0
    for _, old, new in (each for each in FORBIDDEN if each[0] is model):
        setattr(row, name, old)
        with pytest.raises(InvalidTransitionError, match="cannot become"):
            move(row, new)
        refused += 1

    assert refused >= 19
    row.refresh_from_db()
    assert getattr(row, name) == stored
    assert AuditEvent.objects.count() == before


def test_terminal_statuses_are_left_by_no_move() -> None:
    assert not set(TERMINAL_STATUSES) & set(ALLOWED[Deployment])
    assert not {StepStatus.SUCCEEDED, StepStatus.FAILED, StepStatus.BLOCKED} & set(ALLOWED[Step])
    assert ResourceState.DELETED not in ALLOWED[Resource]


def test_a_move_tells_who_what_and_why(step: Step) -> None:
    move(step.deployment, "failed", actor="alice", reason="Because.", status_reason="It broke.")

    event = AuditEvent.objects.latest("pk")
    assert (event.actor, event.action, event.subject_type, event.reason) == (
        "alice",
        "deployment.failed",
        "deployment",
        "Because.",
    )
    assert (event.old_status, event.new_status) == ("running", "failed")
    assert event.deployment_id == event.subject_id == str(step.deployment.pk)
    assert Deployment.objects.get().status_reason == "It broke."


def test_of_two_movers_one_wins(step: Step) -> None:
    rival = Deployment.objects.get(pk=step.deployment.pk)
    move(rival, "succeeded")

    with (
        pytest.raises(InvalidTransitionError, match="moved on by somebody else"),
        transaction.atomic(),
    ):
        move(step.deployment, "failed")

    assert Deployment.objects.get().status == "succeeded"
    assert not AuditEvent.objects.filter(action="deployment.failed").exists()


def test_a_step_of_an_older_attempt_cannot_move(step: Step) -> None:
    Step.objects.filter(pk=step.pk).update(attempt=2)

    with pytest.raises(InvalidTransitionError), transaction.atomic():
        move(step, "succeeded")

    assert Step.objects.get().status == "running"


def test_if_one_row_loses_none_is_moved(place: Place) -> None:
    place.template("part")
    place.submit("  one:\n    type: part\n  two:\n    type: part\n")
    steps = list(Step.objects.select_related("resource").order_by("pk"))
    Step.objects.filter(pk=steps[1].pk).update(status="cancelled")

    with pytest.raises(InvalidTransitionError), transaction.atomic():
        move_all(steps, "blocked")

    assert set(Step.objects.values_list("status", flat=True)) == {"pending", "cancelled"}


def test_a_row_begins_only_with_a_first_status(step: Step) -> None:
    fresh = ResourceConsumer(resource=step.resource, alias="x", mode="private")

    with pytest.raises(InvalidTransitionError, match="A new consumer cannot become 'released'"):
        transitions.begin([fresh], "released", actor="alice")

    assert ResourceConsumer.objects.count() == 1
