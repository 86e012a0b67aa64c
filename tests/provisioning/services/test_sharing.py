from __future__ import annotations

import pytest
from django.contrib.auth.models import User

from provisioning.models import Approval, AuditEvent, Grant, ResourceConsumer, ResourceDependency
from provisioning.services.approvals import approve
from provisioning.services.outputs import resolved_outputs
from provisioning.services.people import NotAllowedError
from provisioning.services.sharing import (
    SharingError,
    end_grant,
    grant,
    plan_revocation,
    revoke,
    set_policy,
    transfer,
)
from tests.provisioning.place import Place

CACHE = "shared/cache"
DB = "private/billing/web/db/database.default"
SHARED = """\
  cache:
    type: cache
    reference: {mode: shared, name: cache}
"""
USED = SHARED + "  db:\n    type: database\n    params: {from: '${resources.cache.host}'}\n"


@pytest.fixture
def shared(place: Place, charlie: User, bob: User) -> Place:
    """Return a place where bob's application billing uses the cache of charlie's team."""
    place.team = ""
    place.template("cache", outputs={"host": False, "password": True})
    place.template("database", outputs={"host": False})
    place.team_named("shop-team", charlie)
    place.team_named("billing-team", bob)
    place.deploy(SHARED)
    deployment = place.submit(USED, application="billing", actor=bob)
    place.done(approve(approval=deployment.approvals.get(), actor=charlie))
    return place


@pytest.fixture
def consumer(shared: Place) -> ResourceConsumer:
    """Return billing's use of the cache."""
    return ResourceConsumer.objects.get(workload__application__name="billing", alias="cache")


def test_a_plan_shows_what_a_consumer_would_lose(consumer: ResourceConsumer) -> None:
    lost = plan_revocation(consumer)

    assert (lost.application, lost.workload, lost.alias, lost.resource) == (
        "billing",
        "web",
        "cache",
        CACHE,
    )
    assert lost.outputs == ("host", "password")
    assert lost.dependents == (DB,)
    assert (lost.others, lost.returns) == ((), "")
    consumer.refresh_from_db()
    assert consumer.state == "active"


def test_a_revoked_consumer_gets_nothing_any_more(
    shared: Place, consumer: ResourceConsumer, charlie: User
) -> None:
    revoke(consumer=consumer, reason="It is ours alone now.", actor=charlie)

    consumer.refresh_from_db()
    assert (consumer.state, consumer.ended_at is not None) == ("revoked", True)
    found = resolved_outputs(
        application=shared.application("billing"), environment=shared.environment, actor=None
    )
    assert list(found["web"]) == ["db"]
    assert not ResourceDependency.objects.filter(target__key=CACHE).exists()
    event = AuditEvent.objects.get(action="resource.revoked")
    assert (event.actor, event.reason) == (
        "charlie",
        "From billing/web.cache: It is ours alone now.",
    )


def test_a_revoked_consumers_resources_get_no_new_outputs(
    shared: Place, consumer: ResourceConsumer, charlie: User
) -> None:
    revoke(consumer=consumer, reason="over", actor=charlie)
    shared.resource(CACHE).outputs.filter(key="host").update(value="moved-host")

    changed = shared.deploy(SHARED + "    params: {size: 9}\n")

    assert changed.status == "succeeded"
    assert DB not in shared.steps(changed)


def test_what_a_revoked_consumer_has_left_can_be_torn_down(
    shared: Place, consumer: ResourceConsumer, charlie: User
) -> None:
    revoke(consumer=consumer, reason="over", actor=charlie)

    assert shared.teardown("billing").status == "succeeded"
    assert shared.states() == {CACHE: "active", DB: "deleted"}


def test_a_revoked_consumer_has_to_ask_again(
    shared: Place, consumer: ResourceConsumer, bob: User, charlie: User
) -> None:
    grant(resource=consumer.resource, application=shared.application("billing"), actor=charlie)
    revoke(consumer=consumer, reason="over", actor=charlie)

    again = shared.submit(USED, application="billing", actor=bob)

    assert again.status == "pending_approval"
    assert not Grant.objects.exists()


def test_the_preview_says_if_a_consumer_may_return_at_once(
    shared: Place, consumer: ResourceConsumer, charlie: User
) -> None:
    team = shared.application("billing").team
    grant(resource=consumer.resource, team=team, actor=charlie)

    assert plan_revocation(consumer).returns == "its team billing-team was granted the resource"


def test_a_revocation_needs_a_reason_and_an_owner(
    consumer: ResourceConsumer, bob: User, charlie: User
) -> None:
    with pytest.raises(SharingError, match="needs a reason"):
        revoke(consumer=consumer, reason=" ", actor=charlie)
    with pytest.raises(NotAllowedError, match="belongs to the team shop-team"):
        revoke(consumer=consumer, reason="mine", actor=bob)

    consumer.refresh_from_db()
    assert consumer.state == "active"
    assert ResourceDependency.objects.filter(target__key=CACHE).exists()


def test_only_an_active_consumer_is_revoked(consumer: ResourceConsumer, charlie: User) -> None:
    revoke(consumer=consumer, reason="over", actor=charlie)

    with pytest.raises(SharingError, match=r"web\.cache is revoked"):
        revoke(consumer=consumer, reason="over", actor=charlie)


def test_only_owners_share_and_hand_over(shared: Place, bob: User) -> None:
    resource = shared.resource(CACHE)
    team = shared.application("billing").team

    for refused in (
        lambda: set_policy(resource=resource, policy="open", actor=bob),
        lambda: grant(resource=resource, team=team, actor=bob),
        lambda: end_grant(resource=resource, team=team, actor=bob),
        lambda: transfer(resource=resource, team=team, actor=bob),
    ):
        with pytest.raises(NotAllowedError, match="whose owners and staff decide"):
            refused()
    resource.refresh_from_db()
    assert (resource.sharing_policy, resource.owner_team.name) == ("approval", "shop-team")
    assert not Grant.objects.exists()


def test_a_policy_is_one_of_three(shared: Place, charlie: User) -> None:
    with pytest.raises(SharingError, match="There are open, approval, closed"):
        set_policy(resource=shared.resource(CACHE), policy="free", actor=charlie)
    assert shared.resource(CACHE).sharing_policy == "approval"


def test_a_grant_is_given_once_and_taken_back(shared: Place, charlie: User) -> None:
    resource, team = shared.resource(CACHE), shared.application("billing").team
    assert grant(resource=resource, team=team, actor=charlie) == grant(
        resource=resource, team=team, actor=charlie
    )

    end_grant(resource=resource, team=team, actor=charlie)

    assert not Grant.objects.exists()
    with pytest.raises(SharingError, match="was not granted to the team billing-team"):
        end_grant(resource=resource, team=team, actor=charlie)


def test_a_resource_is_handed_over_with_its_consumers(shared: Place, charlie: User) -> None:
    team = shared.application("billing").team

    transfer(resource=shared.resource(CACHE), team=team, actor=charlie)

    resource = shared.resource(CACHE)
    assert resource.owner_team == team
    assert resource.consumers.filter(state="active").count() == 2
    event = AuditEvent.objects.get(action="resource.transferred")
    assert event.reason == "From the team shop-team to the team billing-team."
    with pytest.raises(NotAllowedError):
        transfer(resource=resource, team=shared.application("shop").team, actor=charlie)


def test_after_a_transfer_the_creator_asks_to_change_it(shared: Place, charlie: User) -> None:
    transfer(
        resource=shared.resource(CACHE), team=shared.application("billing").team, actor=charlie
    )

    changed = shared.submit(SHARED + "    params: {size: 9}\n", actor=charlie)

    assert changed.status == "pending_approval"
    assert Approval.objects.get(deployment=changed).team.name == "billing-team"
    assert shared.resource(CACHE).params == {}


@pytest.mark.parametrize("way", ["another workload asks for more", "another workload leaves"])
def test_the_stored_wish_of_a_revoked_consumer_brings_no_outputs_back(
    shared: Place, charlie: User, way: str
) -> None:
    view = "  view:\n    type: view\n    id: view\n    params: {%s}\n"
    config = {"outputs": {"told": "${params.get('from')} ${params.get('size')}"}}
    rules = {"from": "priority", "size": "maximum"}
    shared.template(
        "view", driver="template", outputs={"told": False}, config=config, merge_rules=rules
    )
    more = {"application": "billing", "workload": "jobs"}
    shared.deploy(SHARED + view % "from: '${resources.cache.host}'", application="billing")
    shared.deploy(view % "size: 4", **more)
    consumer = ResourceConsumer.objects.get(
        workload__application__name="billing", alias="cache", state="active"
    )
    revoke(consumer=consumer, reason="over", actor=charlie)
    shared.resource(CACHE).outputs.filter(key="host").update(value="moved-host")

    if "leaves" in way:
        ended = shared.teardown("billing", ["jobs"])
    else:
        ended = shared.deploy(view % "size: 5", **more)

    assert ended.status == "failed"
    told = shared.resource("app/billing/view.default#view").outputs.get(key="told")
    assert told.value == "fake-host 4"
    assert not ResourceDependency.objects.filter(target__key=CACHE).exists()
