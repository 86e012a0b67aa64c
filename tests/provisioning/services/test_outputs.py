from __future__ import annotations

import pytest
from django.contrib.auth.models import User

from provisioning.models import AuditEvent
from provisioning.services.outputs import MASK, RevealRefusedError, resolved_outputs
from tests.provisioning.place import Place


@pytest.fixture(autouse=True)
def deployed(place: Place) -> None:
    place.template("database", outputs={"host": False, "password": True})
    place.application("shop")
    place.deploy("  db:\n    type: database\n")


def test_sensitive_outputs_are_masked(place: Place, alice: User) -> None:
    found = resolved_outputs(
        application=place.application(), environment=place.environment, actor=alice
    )

    assert found == {"web": {"db": {"host": "fake-host", "password": MASK}}}
    assert not AuditEvent.objects.filter(action="outputs.revealed").exists()


def test_a_member_may_reveal_and_it_is_audited_by_name_only(place: Place, alice: User) -> None:
    found = resolved_outputs(
        application=place.application("shop", alice),
        environment=place.environment,
        reveal=True,
        actor=alice,
    )

    assert found == {"web": {"db": {"host": "fake-host", "password": "fake-password"}}}
    event = AuditEvent.objects.get(action="outputs.revealed")
    assert (event.actor, event.subject, event.reason) == (
        "alice",
        "private/shop/web/db/database.default",
        "For web: db: password.",
    )


def test_staff_may_reveal(place: Place, charlie: User) -> None:
    charlie.is_staff = True
    found = resolved_outputs(
        application=place.application(), environment=place.environment, reveal=True, actor=charlie
    )

    assert found["web"]["db"]["password"] == "fake-password"


def test_others_may_not_reveal(place: Place, alice: User, bob: User) -> None:
    application = place.application("shop", alice)
    for actor, who in ((bob, "bob"), (None, "somebody unknown")):
        with pytest.raises(RevealRefusedError, match=f"{who} is neither"):
            resolved_outputs(
                application=application, environment=place.environment, reveal=True, actor=actor
            )

    assert not AuditEvent.objects.filter(action="outputs.revealed").exists()


def test_one_workload_can_be_asked_for(place: Place) -> None:
    place.deploy("  store:\n    type: database\n", workload="api")

    found = resolved_outputs(
        application=place.application(), environment=place.environment, workload="api", actor=None
    )

    assert list(found) == ["api"]
    assert list(found["api"]) == ["store"]


def test_what_was_released_is_not_given_any_more(place: Place) -> None:
    place.teardown()

    assert (
        resolved_outputs(application=place.application(), environment=place.environment, actor=None)
        == {}
    )
