from __future__ import annotations

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from provisioning.models import Resource, ResourceConsumer
from provisioning.planning.plan import PlanError
from provisioning.services.deployments import plan_deployment
from tests.provisioning.place import Place, score_file

SHARED = """\
  cache:
    type: cache
    sharing: shared
    params: {size: 1}
"""
TWO = """\
  cache:
    type: cache
    matching: {matchOn: [size], maxConsumers: 2}
    params: {size: 1}
"""


@pytest.fixture
def cache(place: Place) -> Place:
    place.template("cache", outputs={"host": False})
    return place


def uses(application: str) -> Resource:
    consumer = ResourceConsumer.objects.get(workload__application__name=application, state="active")
    assert consumer.mode == "match"
    return consumer.resource


def test_a_match_is_joined_and_destroyed_with_its_last_consumer(cache: Place) -> None:
    assert cache.deploy(SHARED, application="one").status == "succeeded"
    joined = cache.deploy(SHARED, application="two")
    resource = uses("one")

    assert joined.status == "succeeded"
    assert cache.steps(joined) == {}
    assert uses("two") == resource
    assert resource.key == f"slot/{resource.match_slot}/0"
    assert resource.name.startswith("cache-shared-0-")

    cache.teardown("one")
    assert cache.states() == {resource.key: "active"}
    cache.teardown("two")
    assert cache.states() == {resource.key: "deleted"}


def test_a_full_resource_is_followed_by_another_and_a_free_place_is_taken(cache: Place) -> None:
    for number in range(3):
        cache.deploy(TWO, application=f"app-{number}")
    first, second = uses("app-0"), uses("app-2")

    assert uses("app-1") == first != second
    assert (first.match_slot, first.slot_ordinal) == (second.match_slot, 0)
    assert second.slot_ordinal == 1

    cache.teardown("app-0")
    cache.deploy(TWO, application="app-3")
    assert uses("app-3") == first
    assert first.consumers.filter(state="active").count() == 2


def test_a_binding_stays_though_a_better_resource_comes_free(cache: Place) -> None:
    for number in range(3):
        cache.deploy(TWO, application=f"app-{number}")
    second = uses("app-2")
    cache.teardown("app-0")

    again = cache.deploy(TWO, application="app-2")

    assert again.status == "succeeded"
    assert uses("app-2") == second
    (binding,) = again.plan["bindings"]
    assert [each["reason"] for each in binding["considered"]] == [
        "bound to it already, and asks for the same as before"
    ]


def test_a_changed_declaration_moves_and_cleans_up(cache: Place) -> None:
    cache.deploy(SHARED, application="one")
    before = uses("one")
    moved = cache.deploy(SHARED.replace("size: 1", "size: 2"), application="one")

    assert moved.status == "succeeded"
    assert uses("one").match_slot != before.match_slot
    before.refresh_from_db()
    assert before.state == "deleted"


def test_the_plan_keeps_why_each_was_taken_or_not(cache: Place) -> None:
    cache.deploy(SHARED, application="one")
    cache.deploy(SHARED.replace("size: 1", "size: 2"), application="two")
    joined = cache.deploy(SHARED, application="three")

    (binding,) = joined.plan["bindings"]
    assert [(each["chosen"], each["reason"]) for each in binding["considered"]] == [
        (True, "the best-ranked that fits"),
        (False, "its `size` is 2, and 1 is wanted"),
    ]
    assert binding["left_out"] == {}


def test_another_teams_closed_resource_is_passed_over(cache: Place) -> None:
    cache.team = ""
    cache.deploy(SHARED, application="one")
    Resource.objects.update(sharing_policy="closed")
    other = cache.deploy(SHARED, application="two")

    assert other.status == "succeeded"
    assert uses("two") != uses("one")
    (considered,) = other.plan["bindings"][0]["considered"]
    assert considered["reason"] == "its owner has closed it to other teams"


def test_another_teams_resource_is_matched_and_its_owner_asked(cache: Place) -> None:
    cache.team = ""
    cache.deploy(SHARED, application="one")
    asking = cache.deploy(SHARED, application="two")

    assert asking.status == "pending_approval"
    assert not ResourceConsumer.objects.filter(
        workload__application__name="two", state="active"
    ).exists()


def test_the_database_refuses_one_consumer_too_many(cache: Place) -> None:
    for number in range(3):
        cache.deploy(TWO, application=f"app-{number}")
    third = ResourceConsumer.objects.get(workload__application__name="app-2")
    third.resource = uses("app-0")

    with pytest.raises(IntegrityError, match="has 2 consumers already"), transaction.atomic():
        third.save()
    assert uses("app-0").consumers.count() == 2


def test_the_database_refuses_two_in_one_place_of_a_slot(cache: Place) -> None:
    for number in range(3):
        cache.deploy(TWO, application=f"app-{number}")

    with (
        pytest.raises(IntegrityError, match="resource_one_live_per_slot"),
        transaction.atomic(),
    ):
        Resource.objects.filter(pk=uses("app-2").pk).update(slot_ordinal=0)
    with pytest.raises(IntegrityError, match="resource_slot_whole"), transaction.atomic():
        Resource.objects.filter(pk=uses("app-2").pk).update(slot_ordinal=None)


def test_matching_takes_as_many_queries_whatever_there_is(cache: Place) -> None:
    application = cache.application("asks")

    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            plan_deployment(
                application=application,
                environment=cache.environment,
                files=[("score.yaml", score_file("web", SHARED))],
            )
        return len(captured)

    cache.deploy(SHARED, application="first")
    few = queries()
    for number in range(5):
        cache.deploy(TWO, application=f"app-{number}")
    assert queries() == few


def test_a_full_resource_cannot_be_joined_by_its_id_either(cache: Place) -> None:
    for number in range(2):
        cache.deploy(TWO, application=f"app-{number}")
    by_id = (
        f"  cache:\n    type: cache\n    reference: {{mode: existing, id: {uses('app-0').pk}}}\n"
    )

    with pytest.raises(PlanError, match="may have 2 consumers, and has 2 besides"):
        cache.submit(by_id, application="third")
    assert uses("app-0").consumers.count() == 2

    assert cache.deploy(by_id, application="app-1").status == "succeeded"
