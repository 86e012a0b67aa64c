from __future__ import annotations

import pytest
from django.contrib.auth.models import User

from provisioning.models import AuditEvent, Deployment
from provisioning.services.deployments.priority import (
    PriorityError,
    parse_priority,
    priority_name,
    set_priority,
)
from provisioning.services.people import NotAllowedError, system_user
from tests.provisioning.place import Place

PART = "  one:\n    type: part\n"


@pytest.fixture(autouse=True)
def people(place: Place, alice: User, bob: User) -> None:
    """Make alice an owner of the application's team, and bob a member."""
    place.template("part")
    place.team_named("everybody", alice)
    place.application("shop", bob)


@pytest.mark.parametrize(
    ("text", "priority"),
    [("low", -10), ("normal", 0), ("high", 10), ("37", 37), ("-100", -100), ("100", 100)],
)
def test_a_priority_is_a_name_or_a_number(text: str, priority: int) -> None:
    assert parse_priority(text) == priority


@pytest.mark.parametrize("text", ["", "urgent", "1.5", "101", "-101", "High"])
def test_anything_else_is_no_priority(text: str) -> None:
    with pytest.raises(PriorityError, match="use low, normal, high, or a whole number"):
        parse_priority(text)


@pytest.mark.parametrize(("priority", "name"), [(10, "high"), (0, "normal"), (7, "7")])
def test_a_priority_is_written_by_its_name(priority: int, name: str) -> None:
    assert priority_name(priority) == name


@pytest.mark.parametrize(
    ("who", "priority"), [("bob", 0), ("bob", -100), ("alice", 10), ("conductor", 100)]
)
def test_who_may_give_which_priority(place: Place, who: str, priority: int) -> None:
    system_user()

    deployment = place.submit(PART, actor=User.objects.get(username=who), priority=priority)

    assert Deployment.objects.get(pk=deployment.pk).priority == priority


@pytest.mark.parametrize(
    ("who", "priority", "says"),
    [
        ("bob", 1, "for the owners of the team everybody and for platform engineers"),
        ("alice", 11, "above high, that is for platform engineers"),
    ],
)
def test_who_may_not_and_nothing_is_stored(
    place: Place, who: str, priority: int, says: str
) -> None:
    with pytest.raises(NotAllowedError, match=says):
        place.submit(PART, actor=User.objects.get(username=who), priority=priority)

    assert not Deployment.objects.exists()


def test_a_running_deployments_priority_is_changed(place: Place, alice: User) -> None:
    deployment = place.submit(PART)

    set_priority(deployment=deployment, priority=10, actor=alice)

    deployment.refresh_from_db()
    assert deployment.priority == 10
    event = AuditEvent.objects.get(action="deployment.priority")
    assert (event.actor, event.reason) == ("alice", "From normal to high.")


def test_an_ended_deployments_priority_stays(place: Place) -> None:
    deployment = place.deploy(PART)

    with pytest.raises(PriorityError, match="has ended"):
        set_priority(deployment=deployment, priority=10, actor=system_user())

    deployment.refresh_from_db()
    assert deployment.priority == 0


def test_a_member_cannot_raise_a_priority(place: Place, bob: User) -> None:
    deployment = place.submit(PART)

    with pytest.raises(NotAllowedError):
        set_priority(deployment=deployment, priority=10, actor=bob)

    deployment.refresh_from_db()
    assert deployment.priority == 0
