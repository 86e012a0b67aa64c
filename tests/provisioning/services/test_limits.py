from __future__ import annotations

import pytest
from django.contrib.auth.models import User

from provisioning.models import AuditEvent, Environment, ResourceTemplate
from provisioning.services.limits import Limit, LimitError, list_limits, set_limit
from provisioning.services.people import NotAllowedError, system_user
from provisioning.workers.tasks import claim
from tests.provisioning.place import Place


@pytest.fixture(autouse=True)
def templates(place: Place) -> None:
    place.template("part")


def test_a_limit_is_set_listed_and_taken_away(place: Place) -> None:
    template = ResourceTemplate.objects.get()
    set_limit(limited=place.environment, max_concurrent=2, actor=system_user())
    set_limit(limited=template, max_concurrent=1, actor=system_user())
    place.submit("  one:\n    type: part\n")
    claim("default")

    assert list_limits(organisation=place.organisation) == [
        Limit("environment", "dev", 2, 1),
        Limit("template", "part-template", 1, 1),
    ]
    set_limit(limited=template, max_concurrent=None, actor=system_user())
    assert ResourceTemplate.objects.get().max_concurrent is None
    events = AuditEvent.objects.filter(action__endswith=".limited").order_by("pk")
    assert list(events.values_list("action", "reason")) == [
        ("environment.limited", "At most 2 at once."),
        ("resource_template.limited", "At most 1 at once."),
        ("resource_template.limited", "No limit."),
    ]


@pytest.mark.parametrize("most", [0, -1, 2**31])
def test_a_limit_is_at_least_one(place: Place, most: int) -> None:
    with pytest.raises(LimitError):
        set_limit(limited=place.environment, max_concurrent=most, actor=system_user())

    assert Environment.objects.get().max_concurrent is None


def test_limits_are_for_staff(place: Place, alice: User) -> None:
    with pytest.raises(NotAllowedError):
        set_limit(limited=place.environment, max_concurrent=1, actor=alice)

    assert Environment.objects.get().max_concurrent is None
