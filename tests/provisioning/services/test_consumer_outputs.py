"""What each user of a resource is given alone, from its first day to its last."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from provisioning.drivers.base import DriverError, DriverInput
from provisioning.drivers.fake import FakeDriver
from provisioning.models import (
    AuditEvent,
    ConsumerOutput,
    Deployment,
    ResourceConsumer,
    ResourceOutput,
    Step,
)
from provisioning.services.approvals import approve
from provisioning.services.outputs import not_taken_back, resolved_outputs
from provisioning.services.people import system_user
from provisioning.services.pools import create_pool
from provisioning.services.resources.adopt import adopt_resource, detach_resource
from provisioning.services.resources.destroy import destroy_resource
from provisioning.services.sharing import grant, plan_revocation, revoke
from provisioning.workers.tasks import work
from tests.provisioning.place import QUEUE, Place, chores

CACHE = "shared/cache"
DB = "private/billing/web/db/database.default"
SHARED = """\
  cache:
    type: cache
    reference: {mode: shared, name: cache}
"""
TAKES = "  db:\n    type: database\n    params: {from: '${resources.cache.password}'}\n"
USED = SHARED + TAKES


@pytest.fixture
def shared(place: Place, charlie: User, bob: User) -> Place:
    """Return a place where charlie's team has a cache, and bob's team the application billing."""
    place.team = ""
    place.template(
        "cache",
        outputs={"host": False, "password": True},
        config={"own": ["password"]},
        uses=["consumers"],
    )
    told = {"outputs": {"told": "${params['from']}"}}
    place.template("database", driver="template", outputs={"told": True}, config=told)
    place.team_named("shop-team", charlie)
    place.team_named("billing-team", bob)
    place.deploy(SHARED)
    return place


@pytest.fixture
def joined(shared: Place, charlie: User, bob: User) -> Place:
    """Return the place once billing uses the cache, and its own database takes the password."""
    join(shared, bob, charlie)
    return shared


def join(place: Place, bob: User, charlie: User, resources: str = USED) -> Deployment:
    """Deploy billing, which charlie approves."""
    asking = place.submit(resources, application="billing", actor=bob)
    return place.done(approve(approval=asking.approvals.get(), actor=charlie))


def given(place: Place, application: str, workload: str = "web") -> dict[str, Any]:
    """Return what the cache gives to a workload, in clear."""
    found = resolved_outputs(
        application=place.application(application),
        environment=place.environment,
        reveal=True,
        actor=system_user(),
    )
    return found.get(workload, {}).get("cache", {})


def taken(place: Place, key: str = DB) -> Any:
    """Return the password that a database was last made with."""
    found = resolved_outputs(
        application=place.application("billing"),
        environment=place.environment,
        reveal=True,
        actor=system_user(),
    )
    return found["web"]["db"]["told"]


def use(application: str = "billing", workload: str = "web") -> ResourceConsumer:
    """Return an application's active use of the cache."""
    return ResourceConsumer.objects.select_related("resource", "workload__application").get(
        workload__application__name=application,
        workload__name=workload,
        alias="cache",
        state="active",
    )


def passwords() -> set[str]:
    """Return the owners of what the cache gives to one alone."""
    rows = ConsumerOutput.objects.filter(resource__key=CACHE)
    return {f"{row.consumer_id or row.dependent_id}" for row in rows}


def test_each_is_given_its_own_and_nobody_another_s(joined: Place) -> None:
    found = [given(joined, "shop"), given(joined, "billing"), {"password": taken(joined)}]

    assert [each.get("host") for each in found] == ["fake-host", "fake-host", None]
    assert all(each["password"].startswith("fake-password-") for each in found)
    assert len({each["password"] for each in found}) == 3
    assert passwords() == {str(use("shop").pk), str(use().pk), str(joined.resource(DB).pk)}
    assert [row.key for row in ResourceOutput.objects.filter(resource__key=CACHE)] == ["host"]


def test_it_is_stored_only_encrypted(joined: Place) -> None:
    rows = ConsumerOutput.objects.all()

    assert rows.count() == 3
    assert all(row.sensitive and row.value is None and "fake" not in row.ciphertext for row in rows)


def test_whoever_waits_for_approval_has_nothing_anywhere(
    shared: Place, bob: User, charlie: User
) -> None:
    shared.done(shared.submit(USED, application="billing", actor=bob))
    chores()
    work(QUEUE)

    assert given(shared, "billing") == {}
    assert passwords() == {str(use("shop").pk)}


def test_a_granted_join_asks_nobody_and_concerns_nobody_else(
    shared: Place, bob: User, charlie: User
) -> None:
    before = given(shared, "shop")
    billing = shared.application("billing")
    grant(resource=shared.resource(CACHE), application=billing, actor=charlie)

    joining = shared.deploy(SHARED, application="billing", actor=bob)

    assert joining.status == "succeeded"
    assert shared.steps(joining) == {CACHE: ("ensure", "succeeded", True)}
    assert (joining.plan["questions"], joining.plan["blast_radius"]) == ([], {})
    assert given(shared, "shop") == before


def test_joins_do_not_wait_for_one_another(shared: Place) -> None:
    shared.team, names = "everybody", ("one", "two", "three")
    store = SHARED.replace("name: cache", "name: store")
    joining = [shared.submit(store, application=name) for name in names]

    assert [each.status for each in joining] == ["running"] * 3
    work(QUEUE)
    assert len({given(shared, name)["password"] for name in names}) == 3


def test_who_leaves_loses_its_own_and_the_others_keep_theirs(joined: Place) -> None:
    before = given(joined, "shop")

    left = joined.teardown("billing")

    assert joined.steps(left)[CACHE] == ("ensure", "succeeded", True)
    assert passwords() == {str(use("shop").pk)}
    assert given(joined, "shop") == before


def test_who_comes_back_is_given_something_new(joined: Place, bob: User, charlie: User) -> None:
    before = {given(joined, "billing")["password"], taken(joined)}
    joined.teardown("billing")

    join(joined, bob, charlie)

    assert not before & {given(joined, "billing")["password"], taken(joined)}


def test_a_deployment_that_changes_nothing_leaves_it_as_it_is(joined: Place) -> None:
    before = given(joined, "billing")

    again = joined.deploy(USED, application="billing")

    assert (again.status, again.steps.count()) == ("succeeded", 0)
    assert given(joined, "billing") == before


def test_an_update_of_the_resource_keeps_everybody_s(joined: Place) -> None:
    before = given(joined, "shop"), given(joined, "billing"), taken(joined)

    changed = joined.deploy(SHARED + "    params: {size: 2}\n")

    assert joined.steps(changed)[CACHE] == ("ensure", "succeeded", True)
    assert (given(joined, "shop"), given(joined, "billing"), taken(joined)) == before


def test_the_preview_of_a_revocation_tells_what_is_taken_back(joined: Place) -> None:
    lost = plan_revocation(use())

    assert (lost.outputs, lost.own, lost.known) == (("host", "password"), ("password",), ())
    assert lost.dependents == (DB,)


def test_a_revocation_takes_back_at_once_what_was_given(joined: Place, charlie: User) -> None:
    revoke(consumer=use(), reason="Enough.", actor=charlie)
    work(QUEUE)

    maintenance = Deployment.objects.latest("pk")
    assert (maintenance.kind, maintenance.status, maintenance.reason) == (
        "maintenance",
        "succeeded",
        "Revoked: Enough.",
    )
    assert joined.steps(maintenance) == {CACHE: ("ensure", "succeeded", True)}
    assert passwords() == {str(use("shop").pk)}
    assert not not_taken_back().exists()


def test_who_is_allowed_again_is_given_something_new(
    joined: Place, bob: User, charlie: User
) -> None:
    before = {given(joined, "billing")["password"], taken(joined)}
    revoke(consumer=use(), reason="Enough.", actor=charlie)
    work(QUEUE)

    again = join(joined, bob, charlie)

    assert joined.steps(again)[DB] == ("ensure", "succeeded", True)
    assert not before & {given(joined, "billing")["password"], taken(joined)}


def test_only_one_of_two_uses_is_revoked(joined: Place, bob: User, charlie: User) -> None:
    joined.deploy(SHARED, application="billing", workload="jobs", actor=bob)
    jobs = given(joined, "billing", "jobs")

    lost = revoke(consumer=use(), reason="Enough.", actor=charlie)
    work(QUEUE)

    assert (lost.others, lost.dependents) == (("jobs.cache",), (DB,))
    assert given(joined, "billing", "jobs") == jobs
    assert passwords() == {str(use("shop").pk), str(use("billing", "jobs").pk)}


def test_what_another_workload_that_stays_uses_as_well_is_not_cut_off(
    shared: Place, bob: User, charlie: User
) -> None:
    both = SHARED + TAKES.replace("database\n", "database\n    id: common\n")
    join(shared, bob, charlie, both)
    shared.deploy(both, application="billing", workload="jobs", actor=bob)

    lost = revoke(consumer=use(), reason="Enough.", actor=charlie)
    work(QUEUE)

    common = shared.resource("app/billing/database.default#common")
    assert lost.dependents == ()
    assert passwords() == {str(use("shop").pk), str(use("billing", "jobs").pk), str(common.pk)}


def test_a_revocation_during_a_step_is_seen_to_afterwards(
    joined: Place, charlie: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure = FakeDriver.ensure

    def revoked_meanwhile(self: FakeDriver, resource: DriverInput, run: Any) -> Any:
        monkeypatch.setattr(FakeDriver, "ensure", ensure)
        revoke(consumer=use(), reason="Enough.", actor=charlie)
        return ensure(self, resource, run)

    monkeypatch.setattr(FakeDriver, "ensure", revoked_meanwhile)
    joined.deploy(SHARED + "    params: {size: 2}\n")

    assert not not_taken_back().exists()
    assert passwords() == {str(use("shop").pk)}
    assert given(joined, "billing") == {}


def test_taking_back_is_tried_again_if_it_failed(
    joined: Place, charlie: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure = FakeDriver.ensure

    def fails(self: FakeDriver, resource: DriverInput, run: Any) -> Any:
        raise DriverError("The server is away.", permanent=True)

    monkeypatch.setattr(FakeDriver, "ensure", fails)
    revoke(consumer=use(), reason="Enough.", actor=charlie)
    work(QUEUE)
    monkeypatch.setattr(FakeDriver, "ensure", ensure)
    deployments = Deployment.objects.count()
    chores()
    assert (Deployment.objects.count(), not_taken_back().exists()) == (deployments, True)

    Step.objects.filter(status="failed").update(finished_at=timezone.now() - timedelta(minutes=11))
    chores()
    work(QUEUE)

    assert (joined.resource(CACHE).state, not_taken_back().exists()) == ("active", False)
    assert passwords() == {str(use("shop").pk)}


def test_the_sweeper_sees_to_whoever_left_in_another_way(joined: Place) -> None:
    """As one whose deployment was withdrawn after somebody else's step had told the driver of it."""
    ResourceConsumer.objects.filter(pk=use().pk).update(state="withdrawn")
    chores()
    chores()
    work(QUEUE)

    assert Deployment.objects.filter(kind="maintenance").count() == 1
    assert passwords() == {str(use("shop").pk), str(joined.resource(DB).pk)}


def test_taking_back_leaves_the_grace_as_it_is(place: Place) -> None:
    place.template(
        "cache",
        outputs={"password": True},
        config={"own": ["password"]},
        uses=["consumers"],
        grace_seconds=600,
    )
    place.deploy(SHARED)
    revoke(consumer=use("shop"), reason="Enough.", actor=system_user())
    chores()
    begun = place.resource(CACHE).grace_until

    work(QUEUE)

    assert (place.resource(CACHE).grace_until, passwords()) == (begun, set())
    assert begun is not None


def test_who_is_broken_by_force_has_nothing_left(joined: Place, charlie: User) -> None:
    destroy_resource(
        resource=joined.resource(CACHE), actor=charlie, force=True, reason="It is broken."
    )
    work(QUEUE)

    assert joined.resource(CACHE).state == "deleted"
    assert not ConsumerOutput.objects.exists()


def test_what_is_destroyed_by_force_leaves_nothing_that_works(
    joined: Place, bob: User, charlie: User
) -> None:
    destroy_resource(resource=joined.resource(DB), actor=bob, force=True, reason="We want it gone.")
    work(QUEUE)

    assert passwords() == {str(use("shop").pk), str(use().pk)}


def test_detaching_forgets_everybody_s(joined: Place, charlie: User) -> None:
    detach_resource(resource=joined.resource(CACHE), actor=charlie, force=True, reason="Ours now.")

    assert not ConsumerOutput.objects.exists()


def test_what_was_adopted_gives_all_the_same(shared: Place) -> None:
    adopt_resource(
        environment=shared.environment,
        name="old",
        type_="cache",
        template=shared.templates["cache"].template,
        team=shared.team_named("shop-team"),
        outputs={"host": "db.example", "password": "s3cret"},
        actor=system_user(),
    )
    shared.deploy(
        "  cache:\n    type: cache\n    reference: {mode: shared, name: old}\n", workload="api"
    )

    assert given(shared, "shop", "api") == {"host": "db.example", "password": "s3cret"}
    lost = plan_revocation(use("shop", "api"))
    assert (lost.own, lost.known) == ((), ("password",))


def test_a_driver_that_forgets_somebody_fails_and_names_the_output(
    shared: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure = FakeDriver.ensure

    def forgets(self: FakeDriver, resource: DriverInput, run: Any) -> Any:
        return replace(ensure(self, resource, run), consumer_outputs={})

    monkeypatch.setattr(FakeDriver, "ensure", forgets)
    shared.team = "everybody"
    failed = shared.deploy("  cache:\n    type: cache\n", application="one")

    assert failed.status == "failed"
    assert "did not deliver the declared output password" in failed.status_reason


def test_a_claimed_member_of_a_pool_gets_its_own_by_a_step(shared: Place) -> None:
    create_pool(
        environment=shared.environment,
        team=shared.team_named("platform"),
        name="warm",
        version=shared.templates["cache"],
        params={},
        size=1,
        max_size=2,
        actor=system_user(),
    )
    work(QUEUE)

    claimed = shared.submit("  cache:\n    type: cache\n    pool: warm\n", workload="api")
    (member,) = (each["key"] for each in claimed.plan["resources"])
    shared.done(claimed)

    assert shared.steps(claimed) == {member: ("ensure", "succeeded", True)}
    assert given(shared, "shop", "api")["password"].startswith("fake-password-")


def test_every_deployment_and_its_reason_is_in_the_audit_trail(
    joined: Place, charlie: User
) -> None:
    revoke(consumer=use(), reason="Enough.", actor=charlie)

    begun = AuditEvent.objects.filter(action="deployment.waiting").latest("pk")
    assert (begun.actor, begun.reason) == ("charlie", "Revoked: Enough.")
