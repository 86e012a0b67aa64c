from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db.models import Count
from django.utils import timezone

from provisioning.models import (
    AuditEvent,
    Deployment,
    Resource,
    ResourceConsumer,
    ResourcePool,
    Step,
)
from provisioning.planning.maintenance import HeldResourceError
from provisioning.planning.plan import PlanError
from provisioning.queue import doorbell
from provisioning.services.people import NotAllowedError, system_user
from provisioning.services.pools import (
    PoolError,
    create_pool,
    drain_pool,
    fill_pools,
    list_pools,
    resize_pool,
)
from provisioning.services.resources.destroy import destroy_resource
from provisioning.workers.tasks import work
from tests.provisioning.place import QUEUE, Place, chores

CLAIM = "  db:\n    type: database\n    pool: warm\n"
ANOTHER = "  db:\n    type: database\n    pool: warm\n    params: {size: 2}\n"


@pytest.fixture(autouse=True)
def templates(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.template("database", outputs={"host": False})
    monkeypatch.setattr(doorbell, "ring", lambda _queue, **_task: None)


def pool(place: Place, **fields: Any) -> ResourcePool:
    """Make a pool of two, and its members."""
    made = create_pool(
        **{
            "environment": place.environment,
            "team": place.team_named("platform"),
            "name": "warm",
            "version": place.templates["database"],
            "params": {"size": 1},
            "size": 2,
            "max_size": 4,
            "actor": system_user(),
            **fields,
        }
    )
    work(QUEUE)
    return made


def counts(place: Place) -> dict[str, int]:
    (status,) = list_pools(environment=place.environment)
    numbers = {name: getattr(status, name) for name in status.__slots__ if name != "pool"}
    return {name: number for name, number in numbers.items() if number}


def tend() -> None:
    chores()
    work(QUEUE)


def test_a_new_pool_is_filled_by_maintenance(place: Place) -> None:
    pool(place)

    (deployment,) = Deployment.objects.all()
    assert (deployment.kind, deployment.status, deployment.application) == (
        "maintenance",
        "succeeded",
        None,
    )
    assert counts(place) == {"ready": 2}
    member = Resource.objects.first()
    assert member is not None
    assert (member.params, member.owner_team.name, member.claimed_at) == (
        {"size": 1},
        "platform",
        None,
    )


def test_a_claim_takes_the_oldest_ready_member_and_runs_no_step(place: Place) -> None:
    pool(place)
    oldest = Resource.objects.earliest("created_at")

    deployment = place.submit(CLAIM)

    assert (deployment.status, deployment.steps.count()) == ("succeeded", 0)
    consumer = ResourceConsumer.objects.get()
    assert (consumer.resource, consumer.mode, consumer.state) == (oldest, "pool", "active")
    oldest.refresh_from_db()
    assert oldest.owner_team.name == "everybody"
    told = AuditEvent.objects.get(action="resource.claimed")
    assert (told.subject_id, told.reason) == (str(oldest.pk), "By shop/web.db.")
    tend()
    assert counts(place) == {"ready": 2, "claimed": 1}


def test_a_claim_is_kept_by_the_next_deployment(place: Place) -> None:
    pool(place)
    place.deploy(CLAIM)
    claimed = ResourceConsumer.objects.get().resource

    again = place.deploy(CLAIM)

    assert again.plan["resources"][0]["action"] == "unchanged"
    assert ResourceConsumer.objects.get().resource == claimed


def test_two_aliases_get_two_members(place: Place) -> None:
    pool(place)

    place.deploy(CLAIM + CLAIM.replace("db:", "other:"))

    assert counts(place) == {"claimed": 2}
    assert ResourceConsumer.objects.values("resource").distinct().count() == 2


def test_an_empty_pool_falls_through_to_one_made_on_demand(place: Place) -> None:
    pool(place, size=0)

    deployment = place.deploy(CLAIM)

    resource = place.resource("pool/warm/shop/web/db/1")
    assert (deployment.status, resource.state, resource.params) == (
        "succeeded",
        "active",
        {"size": 1},
    )
    assert resource.template_version == place.templates["database"]
    assert resource.claimed_at is not None
    assert deployment.plan["resources"][0]["reason"] == "the pool warm has no member ready"
    assert place.deploy(CLAIM).steps.count() == 0


def test_a_full_pool_refuses_one_more_and_stores_nothing(place: Place) -> None:
    pool(place, size=0, max_size=1)
    place.deploy(CLAIM)

    with pytest.raises(PlanError, match="no member ready, and has 1 of at most 1 members"):
        place.submit(CLAIM, application="other")

    assert Deployment.objects.filter(application__name="other").count() == 0
    assert Resource.objects.count() == 1


def test_a_returned_member_is_destroyed_and_never_claimed_again(place: Place) -> None:
    pool(place)
    place.deploy(CLAIM)
    returned = ResourceConsumer.objects.get().resource

    place.teardown()

    returned.refresh_from_db()
    assert returned.state == "deleted"
    place.deploy(CLAIM, application="other")
    assert ResourceConsumer.objects.get(state="active").resource != returned


def test_a_pool_is_filled_a_few_at_a_time_and_never_beyond_its_most(place: Place) -> None:
    pool(place, size=3, max_size=3, max_concurrent=2)

    assert counts(place) == {"ready": 2}
    fill_pools()
    fill_pools()
    assert counts(place) == {"ready": 2, "making": 1}
    work(QUEUE)
    place.deploy(CLAIM)
    tend()
    assert counts(place) == {"ready": 2, "claimed": 1}


def test_filling_counts_what_is_being_made(place: Place) -> None:
    create_pool(
        environment=place.environment,
        team=place.team_named("platform"),
        name="warm",
        version=place.templates["database"],
        params={},
        size=5,
        max_size=5,
        max_concurrent=2,
        actor=system_user(),
    )
    for _ in range(3):
        fill_pools()

    assert counts(place) == {"making": 2}
    assert Step.objects.count() == 2


def test_a_member_that_is_not_ready_is_not_claimed(place: Place) -> None:
    pool(place)
    first, second = Resource.objects.order_by("created_at")
    Resource.objects.filter(pk=first.pk).update(applied_spec_digest="other")

    place.deploy(CLAIM)

    assert ResourceConsumer.objects.get().resource == second


def test_shrinking_destroys_only_unclaimed_members(place: Place) -> None:
    warm = pool(place, size=3, max_concurrent=3)
    place.deploy(CLAIM)
    claimed = ResourceConsumer.objects.get().resource
    tend()
    assert counts(place) == {"ready": 3, "claimed": 1}

    resize_pool(pool=warm, size=1, actor=system_user())
    work(QUEUE)

    assert counts(place) == {"ready": 1, "claimed": 1}
    claimed.refresh_from_db()
    assert claimed.state == "active"
    tend()
    assert counts(place) == {"ready": 1, "claimed": 1}


def test_draining_leaves_the_claimed(place: Place) -> None:
    warm = pool(place)
    place.deploy(CLAIM)

    drain_pool(pool=warm, actor=system_user())
    work(QUEUE)
    tend()

    assert counts(place) == {"claimed": 1}


def test_a_protected_member_survives_shrinking(place: Place) -> None:
    warm = pool(place)
    Resource.objects.update(protected=True)

    drain_pool(pool=warm, actor=system_user())
    work(QUEUE)

    assert counts(place) == {"ready": 2}


def test_an_unclaimed_member_is_held(place: Place) -> None:
    pool(place)
    member = Resource.objects.first()
    assert member is not None

    with pytest.raises(HeldResourceError, match="unclaimed member of the pool warm"):
        destroy_resource(resource=member, actor=system_user())
    tend()

    assert counts(place) == {"ready": 2}


def test_a_member_destroyed_by_force_is_replaced(place: Place) -> None:
    pool(place)
    member = Resource.objects.first()
    assert member is not None

    destroy_resource(resource=member, actor=system_user(), force=True, reason="broken")
    work(QUEUE)
    tend()

    assert counts(place) == {"ready": 2}
    member.refresh_from_db()
    assert member.state == "deleted"


def test_a_claim_that_is_over_is_taken_back_and_told(place: Place) -> None:
    pool(place, claim_seconds=60)
    place.deploy(CLAIM)
    claimed = ResourceConsumer.objects.get().resource
    tend()
    assert ResourceConsumer.objects.get().state == "active"

    Resource.objects.filter(pk=claimed.pk).update(claimed_at=timezone.now() - timedelta(seconds=61))
    tend()

    consumer = ResourceConsumer.objects.get()
    claimed.refresh_from_db()
    assert (consumer.state, claimed.state) == ("revoked", "deleted")
    told = AuditEvent.objects.get(action="resource.claim_expired")
    assert (told.subject_id, told.reason) == (
        str(claimed.pk),
        "A claim of the pool warm lasts 60 s.",
    )
    place.deploy(CLAIM)
    assert ResourceConsumer.objects.get(state="active").resource != claimed


def test_one_made_on_demand_whose_claim_is_over_is_not_used_again(place: Place) -> None:
    pool(place, size=0, claim_seconds=60)
    place.deploy(CLAIM)
    Resource.objects.update(claimed_at=timezone.now() - timedelta(seconds=61))
    chores()

    place.deploy(CLAIM)

    assert place.states() == {
        "pool/warm/shop/web/db/1": "deleted",
        "pool/warm/shop/web/db/2": "active",
    }


def test_a_member_that_cannot_be_made_is_replaced_after_a_while(place: Place) -> None:
    params = {"fail": "No luck.", "permanent": True}
    pool(place, params=params, size=1)
    (failed,) = Resource.objects.all()
    assert failed.state == "failed"
    tend()
    assert counts(place) == {"failed": 1}

    ResourcePool.objects.update(params={})
    Resource.objects.update(created_at=timezone.now() - timedelta(minutes=11), params={})
    tend()

    failed.refresh_from_db()
    assert failed.state == "deleted"
    assert counts(place) == {"ready": 1}


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        (CLAIM.replace("warm", "wram"), "There is no pool wram in the environment dev"),
        (ANOTHER, "asks for other params than the members of the pool warm have: `size`"),
        (CLAIM.replace("database", "cache"), "are database.default"),
        (CLAIM + "    id: one\n", "a member of a pool is of one alias alone"),
    ],
)
def test_a_claim_that_cannot_be_is_refused(place: Place, resources: str, said: str) -> None:
    pool(place)

    with pytest.raises(PlanError, match=said):
        place.submit(resources)

    assert counts(place) == {"ready": 2}
    assert ResourceConsumer.objects.count() == 0


def test_a_member_cannot_be_used_by_its_id(place: Place) -> None:
    pool(place)
    member = Resource.objects.first()
    assert member is not None

    with pytest.raises(PlanError, match="write `pool: warm` to claim a member of your own"):
        place.submit(
            f"  db:\n    type: database\n    reference: {{mode: existing, id: {member.pk}}}\n"
        )

    assert counts(place) == {"ready": 2}


def test_a_closed_pool_serves_its_own_team_only(place: Place) -> None:
    pool(place, sharing_policy="closed")

    with pytest.raises(PlanError, match="is closed to other teams than platform"):
        place.submit(CLAIM)

    place.team = "platform"
    assert place.submit(CLAIM, application="own").status == "succeeded"


def test_params_that_agree_may_be_repeated(place: Place) -> None:
    pool(place)

    assert place.deploy(ANOTHER.replace("size: 2", "size: 1")).steps.count() == 0


def test_outputs_of_a_claimed_member_reach_what_needs_them(place: Place) -> None:
    pool(place)

    deployment = place.deploy(
        CLAIM + "  user:\n    type: database\n    params: {of: '${resources.db.host}'}\n"
    )

    claimed = ResourceConsumer.objects.get(alias="db").resource
    user = ResourceConsumer.objects.get(alias="user").resource
    assert deployment.status == "succeeded"
    assert user.dependencies.get().target == claimed


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"size": 5}, "5 of at most 4 cannot be"),
        ({"name": "Warm Pool"}, "is no name for a pool"),
        ({"max_concurrent": 0}, "are made at once, not 0"),
        ({"max_concurrent": 10**11}, "are made at once, not 100,000,000,000"),
        ({"claim_seconds": 0}, "lasts 1 to 31,536,000 seconds, not 0"),
        ({"claim_seconds": 10**11}, "seconds, not 100,000,000,000"),
        ({"sharing_policy": "approval"}, "open or closed"),
        ({"params": {"of": "${resources.db.host}"}}, "refers to a resource"),
        ({"params": {"at": {"secretref": "env:X"}}}, "`at` is no secret"),
    ],
)
def test_a_pool_that_cannot_be_is_refused(place: Place, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(PoolError, match=said):
        pool(place, **fields)

    assert (ResourcePool.objects.count(), Resource.objects.count()) == (0, 0)


def test_a_second_pool_of_a_name_is_refused(place: Place) -> None:
    pool(place)

    with pytest.raises(PoolError, match="There is a pool warm in dev already"):
        pool(place)

    assert ResourcePool.objects.count() == 1


def test_what_is_retained_cannot_be_pooled(place: Place) -> None:
    kept = place.template("kept", policy="retain")

    with pytest.raises(PoolError, match="is retained"):
        pool(place, version=kept)


@pytest.mark.parametrize("needs", ["requirements", "co_provision"])
def test_what_needs_further_resources_cannot_be_pooled(place: Place, needs: str) -> None:
    made_of_more = place.template("stack", **{needs: [{"type": "database"}]})

    with pytest.raises(PoolError, match="a pool keeps single ones ready"):
        pool(place, version=made_of_more)

    assert (ResourcePool.objects.count(), Resource.objects.count()) == (0, 0)


def test_only_owners_decide_about_a_pool(place: Place, alice: User) -> None:
    warm = pool(place)

    with pytest.raises(NotAllowedError, match="alice may not decide about the pool warm"):
        drain_pool(pool=warm, actor=alice)

    warm.refresh_from_db()
    assert warm.size == 2
    place.team_named("platform", alice)
    drain_pool(pool=warm, actor=alice)


def test_no_driver_runs_twice_on_a_member(place: Place, ledger: Path) -> None:
    pool(place)
    place.deploy(CLAIM)
    tend()

    made = [line.split()[:2] for line in ledger.read_text().splitlines()]
    assert sorted(made) == sorted(["create", str(each.pk)] for each in Resource.objects.all())
    claims = Resource.objects.annotate(uses=Count("consumers"))
    assert sorted(claims.values_list("uses", flat=True)) == [0, 0, 1]
