from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from django_q.models import OrmQ

from provisioning.models import AuditEvent, Deployment, Environment, MaintenanceMode, Resource
from provisioning.services.maintenance import (
    MaintenanceError,
    begin_maintenance,
    end_maintenance,
    list_maintenance,
)
from provisioning.services.people import NotAllowedError, system_user
from provisioning.services.pools import create_pool, fill_pools
from provisioning.services.resources.destroy import destroy_unused
from provisioning.workers.tasks import claim, work
from tests.provisioning.place import Place

PART = "  one:\n    type: part\n"
SHARED = "  cache:\n    type: part\n    reference: {mode: shared, name: cache}\n"


@pytest.fixture(autouse=True)
def templates(place: Place) -> None:
    place.template("part")


def begin(environment: Environment | None = None, reason: str = "Moving house.") -> str:
    """Begin maintenance; return its sentence."""
    return str(begin_maintenance(environment=environment, reason=reason, actor=system_user()))


def end(environment: Environment | None = None) -> None:
    end_maintenance(environment=environment, actor=system_user())


def fresh(deployment: Deployment) -> tuple[str, str]:
    deployment.refresh_from_db()
    return deployment.status, deployment.status_reason


def test_the_sentence_says_since_when_and_why() -> None:
    begin()
    mode = MaintenanceMode.objects.get()

    assert str(mode) == f"Maintenance since {mode.since:%Y-%m-%d %H:%M} UTC: Moving house."
    mode.reason = ""
    assert str(mode) == f"Maintenance since {mode.since:%Y-%m-%d %H:%M} UTC."


def test_what_is_submitted_meanwhile_is_planned_and_waits(place: Place) -> None:
    sentence = begin()

    deployment = place.submit(PART)

    assert fresh(deployment) == ("waiting", sentence)
    assert [planned["action"] for planned in deployment.plan["resources"]] == ["create"]
    assert not Resource.objects.exists()
    work("default")
    assert fresh(deployment) == ("waiting", sentence)


def test_it_starts_by_itself_when_maintenance_ends(place: Place) -> None:
    begin()
    deployment = place.submit(PART)

    end()

    assert fresh(deployment) == ("running", "")
    assert place.done(deployment).status == "succeeded"


def test_what_runs_already_says_so_and_goes_on_afterwards(place: Place) -> None:
    deployment = place.submit(PART)

    sentence = begin()

    assert fresh(deployment) == ("running", sentence)
    assert claim("default") is None
    OrmQ.objects.all().delete()
    end()
    assert fresh(deployment) == ("running", "")
    assert [row.key for row in OrmQ.objects.all()] == ["default"]
    assert place.done(deployment).status == "succeeded"


def test_a_deployment_that_ends_meanwhile_does_not_keep_the_sentence(place: Place) -> None:
    deployment = place.submit(PART)
    step = claim("default")
    place.submit("  two:\n    type: part\n", application="billing")
    begin()
    assert step is not None

    deployment.steps.update(status="succeeded")
    Deployment.objects.filter(pk=deployment.pk).update(status_reason="Maintenance since ever.")
    work("default")
    from provisioning.services.deployments.end import advance

    advance(deployment.pk)

    assert fresh(deployment) == ("succeeded", "")


def test_other_environments_go_on(place: Place) -> None:
    closed = Environment.objects.create(organisation=place.organisation, name="closed")
    begin(closed)

    assert place.deploy(PART).status == "succeeded"


def test_what_would_change_a_resource_of_a_closed_environment_waits_too(place: Place) -> None:
    place.template(
        "store",
        merge_rules={"size": {"rule": "maximum"}},
        params_schema={"type": "object", "properties": {"size": {}}},
    )
    wish = "  store:\n    type: store\n    matching: {scope: organisation, matchOn: []}\n"
    staging = place.beside("staging")
    staging.deploy(f"{wish}    params: {{size: 1}}\n", application="pay")
    sentence = begin(staging.environment)

    grows = place.submit(f"{wish}    params: {{size: 2}}\n")

    assert fresh(grows) == ("waiting", f"In staging: {sentence}")
    end(staging.environment)
    assert fresh(grows) == ("running", "")
    assert place.done(grows).status == "succeeded"


def test_the_end_of_one_maintenance_tells_of_the_other(place: Place) -> None:
    begin(reason="Everything.")
    deployment = place.submit(PART)
    sentence = begin(place.environment, reason="Only here.")

    end()

    assert fresh(deployment) == ("waiting", sentence)
    assert "Only here." in sentence


def test_after_maintenance_a_deployment_names_what_blocks_it_then(place: Place) -> None:
    first = place.submit(PART)
    begin()
    second = place.submit(SHARED)

    end()

    assert fresh(second) == (
        "waiting",
        f"Waiting for deployment {first.pk} of the same application and environment.",
    )


def test_pools_are_filled_afterwards(place: Place) -> None:
    begin()
    create_pool(
        environment=place.environment,
        team=place.team_named("platform"),
        name="warm",
        version=place.templates["part"],
        params={},
        size=1,
        max_size=1,
        actor=system_user(),
    )
    asked = Deployment.objects.count()
    for _ in range(3):
        fill_pools()
    assert Deployment.objects.count() == asked

    end()
    fill_pools()
    work("default")

    assert Resource.objects.filter(state="active").count() == 1


def test_what_nobody_uses_is_destroyed_afterwards(place: Place) -> None:
    place.deploy(SHARED)
    Resource.objects.update(grace_seconds=600)
    place.teardown()
    Resource.objects.update(grace_until=timezone.now() - timedelta(seconds=1))
    begin()
    asked = Deployment.objects.count()
    destroy_unused()
    assert Deployment.objects.count() == asked

    end()
    destroy_unused()
    work("default")

    assert set(place.states().values()) == {"deleted"}


def test_it_can_be_on_only_once(place: Place) -> None:
    begin()

    with pytest.raises(MaintenanceError, match="on already everywhere"):
        begin()

    assert MaintenanceMode.objects.count() == 1


def test_what_is_not_on_cannot_be_ended(place: Place) -> None:
    begin()

    with pytest.raises(MaintenanceError, match="not on in dev"):
        end(place.environment)

    assert MaintenanceMode.objects.count() == 1


def test_it_is_for_staff(place: Place, alice: User) -> None:
    with pytest.raises(NotAllowedError):
        begin_maintenance(environment=None, reason="", actor=alice)
    assert not MaintenanceMode.objects.exists()

    begin()
    with pytest.raises(NotAllowedError):
        end_maintenance(environment=None, actor=alice)
    assert MaintenanceMode.objects.exists()


def test_both_ends_are_recorded(place: Place) -> None:
    begin(place.environment)
    end(place.environment)

    events = AuditEvent.objects.filter(subject_type="maintenance").order_by("pk")
    assert list(events.values_list("actor", "action", "subject", "reason")) == [
        ("conductor", "maintenance.begun", "dev", "Moving house."),
        ("conductor", "maintenance.ended", "dev", "Moving house."),
    ]


def test_a_person_sees_what_concerns_them(place: Place, alice: User, bob: User) -> None:
    place.application("shop", alice)
    begin()
    begin(place.environment)

    def seen(user: User) -> list[str]:
        return [str(mode.environment or "") for mode in list_maintenance(actor=user)]

    assert seen(system_user()) == ["", "dev"]
    assert seen(alice) == ["", "dev"]
    assert seen(bob) == [""]
