"""What other environments and organisations have to ask, and what they may find at all."""

from __future__ import annotations

import json

import pytest
from django.contrib.auth.models import User

from provisioning.models import (
    Approval,
    AuditEvent,
    Deployment,
    LogChunk,
    Resource,
    ResourceConsumer,
)
from provisioning.planning.plan import PlanError
from provisioning.services.approvals import approve, may_decide, reject
from provisioning.services.deployments import plan_deployment
from provisioning.services.outputs import resolved_outputs
from provisioning.services.people import NotAllowedError, system_user
from provisioning.services.publishing import PublishingError, publish_resource
from provisioning.services.sharing import set_policy
from provisioning.workers.tasks import work
from tests.provisioning.place import Place, new_place, score_file

WIDE = """\
  cache:
    type: cache
    matching: {scope: organisation}
    params: {size: 1}
"""
GLOBAL = WIDE.replace("organisation", "global")
USED = "  db:\n    type: database\n    params: {of: '${resources.cache.password}'}\n"


@pytest.fixture
def owned(place: Place, charlie: User, bob: User) -> Place:
    """Return a place where charlie's team has a cache in production."""
    production = place.beside("production")
    production.team = place.team = ""
    place.template("cache", outputs={"host": False, "password": True})
    place.template("database", outputs={"host": False})
    place.team_named("pay-team", charlie)
    place.team_named("shop-team", bob)
    production.deploy(WIDE, application="pay")
    return production


@pytest.fixture
def rival(owned: Place) -> Place:
    """Return another organisation, whose team has the name of the owning one."""
    rival = new_place("rival")
    rival.template("database", outputs={"host": False})
    rival.team = "pay-team"
    return rival


def owned_cache() -> Resource:
    return Resource.objects.get(environment__name="production", type="cache")


def pending(deployment: Deployment) -> Approval:
    return Approval.objects.get(deployment=deployment, status="pending")


def given(place: Place) -> str:
    """Return, as text, everything that the application shop gets anywhere."""
    outputs = resolved_outputs(
        application=place.application(),
        environment=place.environment,
        reveal=True,
        actor=system_user(),
    )
    told = [str(each.plan) for each in Deployment.objects.all()]
    told += LogChunk.objects.values_list("text", flat=True)
    told += [str(row.params) for row in Resource.objects.filter(environment=place.environment)]
    return json.dumps([outputs, told])


def publish(published: bool = True) -> Resource:
    return publish_resource(resource=owned_cache(), published=published, actor=system_user())


def test_the_owner_in_the_other_environment_is_asked_and_nothing_leaks_before(
    owned: Place, bob: User, charlie: User
) -> None:
    dev = owned.beside("dev")
    asking = dev.submit(WIDE + USED, actor=bob)
    approval = pending(asking)
    key = owned_cache().key

    assert (asking.status, asking.status_reason) == (
        "pending_approval",
        f"Waiting for approval: of acme/production/{key} by the team pay-team.",
    )
    assert (approval.team.name, approval.key, approval.resource) == ("pay-team", key, owned_cache())
    assert approval.asks["text"] == (
        f"shop of the team shop-team asks to use acme/production/{key}."
    )
    assert approval.asks["users"] == ["acme/production/pay/web"]
    work("default")
    assert "fake-" not in given(dev)
    assert not Resource.objects.filter(environment=dev.environment).exists()
    assert not ResourceConsumer.objects.filter(crosses=True, state="active").exists()

    approved = approve(approval=approval, actor=charlie)
    assert dev.done(approved).status == "succeeded"
    assert "fake-password" in given(dev)
    consumer = ResourceConsumer.objects.get(crosses=True)
    assert (consumer.state, consumer.resource) == ("active", owned_cache())


def test_the_owner_is_asked_about_the_whole_and_not_about_its_parts(
    owned: Place, bob: User
) -> None:
    owned.template("policy")
    owned.template("bucket", co_provision=[{"type": "policy"}])
    bucket = WIDE.replace("type: cache", "type: bucket")
    owned.deploy(bucket, application="pay", workload="files")
    asking = owned.beside("dev").submit(bucket, actor=bob)

    assert asking.plan["resources"][1]["key"].startswith("in/acme/production/with/slot/")
    assert pending(asking).resource == Resource.objects.get(type="bucket")


def test_a_refusal_in_the_other_environment_ends_the_deployment(
    owned: Place, bob: User, charlie: User
) -> None:
    dev = owned.beside("dev")
    asking = dev.submit(WIDE, actor=bob)
    reject(approval=pending(asking), actor=charlie, comment="Not from dev.")

    asking.refresh_from_db()
    assert asking.status == "rejected"
    assert list(ResourceConsumer.objects.filter(crosses=True).values_list("state", flat=True)) == [
        "withdrawn"
    ]


def test_a_resource_that_is_gone_when_its_owner_approves_is_asked_about_no_more(
    owned: Place, bob: User, charlie: User
) -> None:
    dev = owned.beside("dev")
    asking = dev.submit(WIDE, actor=bob)
    assert owned.teardown("pay").status == "succeeded"

    approved = approve(approval=pending(asking), actor=charlie)

    assert approved.status == "pending_confirmation"
    assert [each["action"] for each in approved.plan["resources"]] == ["create"]


def test_work_in_a_protected_environment_is_asked_for(owned: Place, bob: User) -> None:
    owned.environment.protected = True
    owned.environment.save()
    set_policy(resource=owned_cache(), policy="open", actor=system_user())
    dev = owned.beside("dev")
    joining = dev.submit(WIDE, actor=bob)

    assert pending(joining).asks["text"] == (
        "shop asks to deploy in dev, touching the protected environment acme/production."
    )
    assert pending(joining).team.name == "shop-team"
    dev.done(approve(approval=pending(joining), actor=system_user()))
    again = dev.submit(WIDE, actor=bob)
    assert again.status == "succeeded"

    Approval.objects.all().delete()
    owned_cache().consumers.filter(crosses=False).update(state="released")
    leaving = dev.submit("  {}\n", actor=bob)
    assert leaving.plan["steps"][0]["action"] == "destroy"
    assert leaving.status == "pending_approval"


def test_an_unpublished_resource_is_not_found_by_another_organisation(rival: Place) -> None:
    with pytest.raises(PlanError) as refused:
        rival.submit(GLOBAL)

    assert str(refused.value) == (
        "score.yaml:8:3: `cache` is matched in the scope global, which makes nothing, and there is "
        "no cache.default to be found. (ask platform engineers to publish one (manage.py share "
        "publish), or write `scope: organisation` to have one made)"
    )
    assert not Deployment.objects.filter(environment=rival.environment).exists()
    assert Resource.objects.count() == 1


def test_a_published_resource_is_found_asked_for_and_used(
    rival: Place, bob: User, charlie: User
) -> None:
    publish()
    asking = rival.submit(GLOBAL + USED, actor=bob)
    approval = pending(asking)

    assert asking.scope == "global"
    assert approval.team == owned_cache().owner_team
    assert approval.asks["team"] == "acme/pay-team"
    assert may_decide(charlie, approval)
    work("default")
    assert "fake-" not in given(rival)

    approved = approve(approval=approval, actor=charlie)
    assert rival.done(approved).status == "succeeded"
    cache = owned_cache()
    assert ResourceConsumer.objects.get(crosses=True).resource == cache
    database = Resource.objects.get(environment=rival.environment)
    assert database.params == {"of": f"${{resources.in/acme/production/{cache.key}.password}}"}
    assert rival.deploy(GLOBAL + USED).plan["steps"] == []

    assert rival.teardown().status == "succeeded"
    cache.refresh_from_db()
    assert cache.state == "active"


def test_the_owners_of_the_asking_team_do_not_decide(rival: Place, bob: User) -> None:
    publish()
    other = User.objects.create_user("other")
    rival.team_named("pay-team", other)
    asking = rival.submit(GLOBAL, actor=bob)

    with pytest.raises(NotAllowedError, match="that is for the owners of the team pay-team"):
        approve(approval=pending(asking), actor=other)
    assert pending(asking).status == "pending"


def test_the_scope_organisation_ends_at_the_organisation(rival: Place) -> None:
    publish()
    rival.template("cache", outputs={"host": False})
    made = rival.deploy(WIDE)

    assert made.plan["bindings"][0]["considered"] == []
    assert ResourceConsumer.objects.filter(crosses=True).count() == 0


def test_what_is_nearer_comes_before_what_is_published(rival: Place) -> None:
    publish()
    rival.template("cache", outputs={"host": False})
    rival.deploy(WIDE, application="old")
    joined = rival.deploy(GLOBAL)

    assert joined.status == "succeeded"
    (binding,) = joined.plan["bindings"]
    assert [(each["owner_team"], each["chosen"]) for each in binding["considered"]] == [
        ("pay-team", True),
        ("acme/pay-team", False),
    ]


def test_unpublishing_leaves_who_uses_it(rival: Place, bob: User, charlie: User) -> None:
    publish()
    asking = rival.submit(GLOBAL, actor=bob)
    rival.done(approve(approval=pending(asking), actor=charlie))
    publish(published=False)

    stays = rival.deploy(GLOBAL)
    assert (stays.status, stays.plan["bindings"][0]["key"][:19]) == (
        "succeeded",
        "in/acme/production/",
    )
    with pytest.raises(PlanError, match=r"no cache\.default to be found"):
        plan_deployment(
            application=rival.application("late"),
            environment=rival.environment,
            files=[("score.yaml", score_file("web", GLOBAL))],
        )


def test_a_closed_resource_is_told_of_but_not_taken(rival: Place) -> None:
    set_policy(resource=publish(), policy="closed", actor=system_user())

    with pytest.raises(PlanError, match="nothing fits: 1 closed to other teams"):
        rival.submit(GLOBAL)


def test_publishing_is_for_staff_and_audited(owned: Place, charlie: User) -> None:
    with pytest.raises(NotAllowedError, match="charlie may not publish a resource across org"):
        publish_resource(resource=owned_cache(), published=True, actor=charlie)
    assert not owned_cache().published

    publish()
    publish(published=False)
    told = AuditEvent.objects.filter(action__endswith="published").order_by("pk")
    assert list(told.values_list("action", "actor", "subject")) == [
        ("resource.published", "conductor", owned_cache().key),
        ("resource.unpublished", "conductor", owned_cache().key),
    ]


def test_only_what_is_found_by_criteria_is_published(owned: Place) -> None:
    owned.deploy("  own:\n    type: cache\n", application="other")
    private = Resource.objects.get(match_slot="")

    with pytest.raises(PublishingError, match="nobody finds it by criteria"):
        publish_resource(resource=private, published=True, actor=system_user())
    assert not Resource.objects.filter(published=True).exists()
