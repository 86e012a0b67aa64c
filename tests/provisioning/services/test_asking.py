from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from provisioning.models import (
    Approval,
    AuditEvent,
    Deployment,
    LogChunk,
    Resource,
    Step,
    Workload,
)
from provisioning.planning.plan import PlanError
from provisioning.services.approvals import (
    approve,
    reject,
)
from provisioning.services.deployments import plan_deployment
from provisioning.services.people import NotAllowedError
from provisioning.services.sharing import grant, set_policy
from provisioning.workers.tasks import work
from tests.provisioning.place import Place, score_file
from tests.provisioning.services.owners import (
    CACHE,
    SHARED,
    USED,
    ask,
    consumers,
    fresh,
    outputs,
    owned,
)

__all__ = ["owned"]


def test_using_another_teams_resource_asks_its_owners(owned: Place, bob: User) -> None:
    approval = ask(owned, bob, SHARED + "    params: {size: 3}\n")

    deployment = approval.deployment
    assert (deployment.status, deployment.status_reason) == (
        "pending_approval",
        "Waiting for approval: of shared/cache by the team shop-team.",
    )
    assert (approval.team.name, approval.asked_by, approval.key) == ("shop-team", "bob", CACHE)
    assert approval.asks["wanted"] == {"web.cache": {"size": 3}}
    assert approval.asks["changes"] == [{"param": "size", "before": None, "after": 3}]
    assert approval.asks["users"] == ["shop/web"]
    assert timedelta(days=6.9) < approval.expires_at - timezone.now() < timedelta(days=7.1)


@pytest.mark.parametrize("way", ["sharing: shared", "reference: {mode: existing, id: %s}"])
def test_every_way_to_another_teams_resource_asks(owned: Place, bob: User, way: str) -> None:
    owned.deploy("  found:\n    type: cache\n    sharing: shared\n")
    resource = Resource.objects.exclude(key=CACHE).get()
    wanted = way % resource.pk if "%" in way else way

    approval = ask(owned, bob, f"  mine:\n    type: cache\n    {wanted}\n")

    assert (approval.resource, approval.asks["joins"]) == (resource, True)
    assert consumers("pending") == [("billing", "mine")]
    assert not approval.deployment.steps.exists()


def test_nothing_starts_until_the_owners_have_answered(owned: Place, bob: User) -> None:
    deployment = ask(owned, bob, USED).deployment

    work("default")

    assert fresh(deployment).status == "pending_approval"
    assert not deployment.steps.exists()
    assert owned.states() == {CACHE: "active"}
    assert consumers("pending") == [("billing", "cache")]
    assert consumers("active") == [("shop", "cache")]


def test_a_pending_workload_counts_as_not_deployed(owned: Place, bob: User) -> None:
    ask(owned, bob)

    assert not Workload.objects.filter(application__name="billing", removed_at=None).exists()


def test_the_same_team_is_never_asked(owned: Place) -> None:
    owned.team = "shop-team"

    joined = owned.deploy(SHARED, application="reports")

    assert joined.status == "succeeded"
    assert not Approval.objects.exists()


def test_who_uses_a_resource_already_is_not_asked_again(
    owned: Place, bob: User, charlie: User
) -> None:
    owned.done(approve(approval=ask(owned, bob), actor=charlie))

    again = owned.deploy(SHARED, application="billing", workload="jobs")

    assert again.status == "succeeded"
    assert Approval.objects.count() == 1


def test_leaving_asks_nobody(owned: Place, bob: User, charlie: User) -> None:
    owned.done(approve(approval=ask(owned, bob), actor=charlie))

    assert owned.teardown("billing").status == "succeeded"
    assert consumers("active") == [("shop", "cache")]


def test_no_longer_naming_a_resource_asks_nobody(owned: Place, bob: User, charlie: User) -> None:
    owned.done(approve(approval=ask(owned, bob), actor=charlie))

    left = owned.deploy("  db:\n    type: database\n", application="billing")

    assert left.status == "succeeded"
    assert consumers("active") == [("shop", "cache"), ("billing", "db")]


def test_until_approval_no_output_comes_by_any_route(
    owned: Place, bob: User, charlie: User
) -> None:
    approval = ask(owned, bob, USED)
    work("default")

    assert outputs(owned) == {}
    assert not Resource.objects.visible_to(bob).exists()
    assert not LogChunk.objects.filter(step__deployment=approval.deployment).exists()
    assert "fake-host" not in str(approval.deployment.plan)
    assert "fake-host" not in str(approval.asks)
    assert not any("fake-host" in str(each.params) for each in Resource.objects.all())
    assert not AuditEvent.objects.filter(reason__contains="fake-host").exists()
    reject(approval=approval, actor=charlie, comment="no")
    assert outputs(owned) == {}


def test_an_open_resource_is_joined_without_asking(owned: Place, bob: User, charlie: User) -> None:
    set_policy(resource=owned.resource(CACHE), policy="open", actor=charlie)

    assert owned.deploy(SHARED, application="billing", actor=bob).status == "succeeded"
    assert not Approval.objects.exists()


def test_an_open_resource_is_still_not_changed_without_asking(
    owned: Place, bob: User, charlie: User
) -> None:
    set_policy(resource=owned.resource(CACHE), policy="open", actor=charlie)

    approval = ask(owned, bob, SHARED + "    params: {size: 3}\n")

    assert (approval.asks["joins"], approval.asks["changes"][0]["param"]) == (False, "size")
    assert owned.resource(CACHE).params == {}


def test_a_closed_resource_refuses_and_names_its_owner(
    owned: Place, bob: User, charlie: User
) -> None:
    set_policy(resource=owned.resource(CACHE), policy="closed", actor=charlie)

    with pytest.raises(PlanError, match="closed to other teams by its owner, the team shop-team"):
        owned.submit(SHARED, application="billing", actor=bob)
    assert not Approval.objects.exists()
    assert not Deployment.objects.filter(application__name="billing").exists()


@pytest.mark.parametrize("to", ["application", "team"])
def test_a_grant_answers_beforehand(owned: Place, bob: User, charlie: User, to: str) -> None:
    set_policy(resource=owned.resource(CACHE), policy="closed", actor=charlie)
    application = owned.application("billing")
    receiver: Any = application if to == "application" else application.team
    grant(resource=owned.resource(CACHE), actor=charlie, **{to: receiver})

    assert owned.deploy(SHARED, application="billing", actor=bob).status == "succeeded"
    assert not Approval.objects.exists()


def test_a_plan_tells_what_it_would_ask_and_writes_nothing(owned: Place) -> None:
    plan = plan_deployment(
        application=owned.application("billing"),
        environment=owned.environment,
        files=[("score.yaml", score_file("web", SHARED))],
    )

    assert [(each.team, each.text) for each in plan.questions] == [
        ("shop-team", "billing of the team billing-team asks to use shared/cache.")
    ]
    assert not Approval.objects.exists()


def test_the_creator_leaves_and_the_resource_stays_its_teams(
    owned: Place, bob: User, charlie: User
) -> None:
    owned.done(approve(approval=ask(owned, bob), actor=charlie))

    owned.teardown("shop")

    resource = owned.resource(CACHE)
    assert (resource.state, resource.owner_team.name) == ("active", "shop-team")
    assert consumers("active") == [("billing", "cache")]


def test_a_deployment_to_a_protected_environment_needs_another_owner(
    owned: Place, alice: User, bob: User, charlie: User
) -> None:
    owned.environment.protected = True
    owned.environment.save()
    owned.team_named("billing-team", alice)
    approval = ask(owned, bob, "  db:\n    type: database\n")

    assert (approval.kind, approval.team.name, approval.resource) == (
        "deployment",
        "billing-team",
        None,
    )
    for actor in (bob, charlie):
        with pytest.raises(NotAllowedError):
            approve(approval=approval, actor=actor)
    assert not Step.objects.filter(deployment=approval.deployment).exists()
    assert owned.done(approve(approval=approval, actor=alice)).status == "succeeded"


def test_a_teardown_of_a_protected_environment_is_asked_too(owned: Place, charlie: User) -> None:
    owned.environment.protected = True
    owned.environment.save()

    assert owned.teardown("shop").status == "pending_approval"
    assert owned.states() == {CACHE: "active"}
    approval = Approval.objects.get()
    assert owned.done(approve(approval=approval, actor=charlie)).status == "succeeded"
    assert owned.states() == {CACHE: "deleted"}
