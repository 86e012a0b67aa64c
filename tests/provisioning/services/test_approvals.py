from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, connections, transaction
from django.utils import timezone

from provisioning.exceptions import ConductorError
from provisioning.models import (
    Approval,
    AuditEvent,
    Deployment,
    LogChunk,
    Resource,
    ResourceConsumer,
    Step,
    Workload,
)
from provisioning.planning.plan import PlanError
from provisioning.services.approvals import (
    AlreadyDecidedError,
    CommentMissingError,
    approve,
    expire_approvals,
    reject,
    withdraw,
)
from provisioning.services.deployments import confirm_deployment, plan_deployment
from provisioning.services.outputs import resolved_outputs
from provisioning.services.people import NotAllowedError
from provisioning.services.sharing import grant, set_policy, transfer
from provisioning.workers.sweeper import sweep
from provisioning.workers.tasks import work
from tests.provisioning.place import Place, score_file

CACHE = "shared/cache"
SHARED = """\
  cache:
    type: cache
    reference: {mode: shared, name: cache}
"""
USED = SHARED + "  db:\n    type: database\n    params: {from: '${resources.cache.host}'}\n"


@pytest.fixture
def owned(place: Place, charlie: User, bob: User) -> Place:
    """Return a place where charlie's team has a cache, and bob's team has the application billing."""
    place.team = ""
    place.template("cache", outputs={"host": False, "password": True})
    place.template("database", outputs={"host": False})
    place.team_named("shop-team", charlie)
    place.team_named("billing-team", bob)
    place.deploy(SHARED)
    return place


def ask(place: Place, bob: User, resources: str = SHARED, **more: Any) -> Approval:
    deployment = place.submit(resources, application="billing", actor=bob, **more)
    return Approval.objects.get(deployment=deployment, status="pending")


def fresh(deployment: Deployment) -> Deployment:
    deployment.refresh_from_db()
    return deployment


def consumers(state: str) -> list[tuple[str, str]]:
    rows = ResourceConsumer.objects.filter(state=state).order_by("pk")
    return list(rows.values_list("workload__application__name", "alias"))


def outputs(place: Place, application: str = "billing") -> dict[str, Any]:
    return resolved_outputs(
        application=place.application(application), environment=place.environment, actor=None
    )


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


def test_with_the_last_approval_the_deployment_starts_by_itself(
    owned: Place, bob: User, charlie: User
) -> None:
    approval = ask(owned, bob, USED)

    deployment = approve(approval=approval, actor=charlie, comment="welcome")

    assert deployment.status == "running"
    assert owned.done(deployment).status == "succeeded"
    assert consumers("active") == [("shop", "cache"), ("billing", "cache"), ("billing", "db")]
    approval.refresh_from_db()
    assert (approval.status, approval.decided_by, approval.comment) == (
        "approved",
        "charlie",
        "welcome",
    )
    assert outputs(owned)["web"]["cache"]["host"] == "fake-host"


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


def test_an_approved_deployment_starts_after_the_one_it_waits_for(
    owned: Place, bob: User, charlie: User
) -> None:
    first = owned.submit("  db:\n    type: database\n", application="billing", actor=bob)
    approval = ask(owned, bob, "  db:\n    type: database\n" + SHARED)

    deployment = approve(approval=approval, actor=charlie)
    assert (deployment.status, deployment.status_reason) == (
        "waiting",
        f"Waiting for deployment {first.pk} of the same application and environment.",
    )
    assert consumers("pending") == [("billing", "cache")]
    work("default")

    assert fresh(deployment).status == "succeeded"
    assert ("billing", "cache") in consumers("active")


def test_a_refusal_ends_the_deployment_with_the_comment(
    owned: Place, bob: User, charlie: User
) -> None:
    approval = ask(owned, bob, USED)

    deployment = reject(approval=approval, actor=charlie, comment="It is too small for two.")

    assert (fresh(deployment).status, deployment.status_reason) == (
        "rejected",
        "charlie of the asked team shop-team refused shared/cache: It is too small for two.",
    )
    assert consumers("pending") == []
    assert consumers("withdrawn") == [("billing", "cache")]
    assert owned.states() == {CACHE: "active"}
    assert not deployment.steps.exists()


def test_a_refusal_needs_a_comment(owned: Place, bob: User, charlie: User) -> None:
    approval = ask(owned, bob)

    with pytest.raises(CommentMissingError, match="needs a comment"):
        reject(approval=approval, actor=charlie, comment="  ")
    assert fresh(approval.deployment).status == "pending_approval"


def test_only_owners_of_the_asked_team_decide(
    owned: Place, alice: User, bob: User, charlie: User
) -> None:
    owned.application("shop", alice)  # a member, and no owner
    approval = ask(owned, bob)

    for decide in (approve, reject):
        with pytest.raises(
            NotAllowedError, match=r"owners of the team shop-team \(charlie\) and for"
        ):
            decide(approval=approval, actor=alice, comment="I like it.")
    assert fresh(approval.deployment).status == "pending_approval"
    assert consumers("pending") == [("billing", "cache")]


def test_staff_decide_too(owned: Place, alice: User, bob: User) -> None:
    alice.is_staff = True
    alice.save()

    assert approve(approval=ask(owned, bob), actor=alice).status != "pending_approval"


def test_nobody_approves_a_request_of_their_own(owned: Place, charlie: User) -> None:
    owned.team_named("billing-team", charlie)
    charlie.is_staff = True
    charlie.save()
    approval = ask(owned, charlie)

    with pytest.raises(NotAllowedError, match="nobody decides about a request of their own"):
        approve(approval=approval, actor=charlie)
    assert fresh(approval.deployment).status == "pending_approval"


def test_the_requester_may_withdraw(owned: Place, bob: User) -> None:
    approval = ask(owned, bob)

    deployment = withdraw(approval=approval, actor=bob)

    assert fresh(deployment).status == "cancelled"
    approval.refresh_from_db()
    assert approval.status == "withdrawn"
    assert consumers("pending") == []


def test_others_may_not_withdraw(owned: Place, bob: User, charlie: User) -> None:
    approval = ask(owned, bob)

    with pytest.raises(NotAllowedError, match="bob asked for it"):
        withdraw(approval=approval, actor=charlie)
    assert fresh(approval.deployment).status == "pending_approval"


def test_an_approval_expires(owned: Place, bob: User, charlie: User) -> None:
    approval = ask(owned, bob)
    Approval.objects.update(expires_at=timezone.now() - timedelta(seconds=1))

    with pytest.raises(AlreadyDecidedError, match="expired"):
        approve(approval=approval, actor=charlie)
    sweep()

    assert fresh(approval.deployment).status == "expired"
    approval.refresh_from_db()
    assert approval.status == "expired"
    assert consumers("pending") == []


def test_what_is_in_time_does_not_expire(owned: Place, bob: User) -> None:
    approval = ask(owned, bob)

    expire_approvals()

    assert fresh(approval.deployment).status == "pending_approval"


def test_a_newer_deployment_withdraws_the_older_ones_questions(owned: Place, bob: User) -> None:
    older = ask(owned, bob)

    newer = ask(owned, bob)

    older.refresh_from_db()
    assert older.status == "withdrawn"
    assert fresh(older.deployment).status == "superseded"
    assert newer.deployment_id != older.deployment_id
    assert consumers("pending") == [("billing", "cache")]


def test_a_stale_plan_is_shown_again_and_the_approval_stands(
    owned: Place, bob: User, charlie: User
) -> None:
    approval = ask(owned, bob)
    owned.team = "shop-team"
    owned.deploy(SHARED, application="reports")

    deployment = approve(approval=approval, actor=charlie)

    assert deployment.status == "pending_confirmation"
    assert not deployment.steps.exists()
    assert consumers("pending") == [("billing", "cache")]
    assert confirm_deployment(deployment=deployment, actor=bob).status == "succeeded"
    assert consumers("pending") == []
    assert ("billing", "cache") in consumers("active")


def test_a_changed_question_is_asked_again(owned: Place, bob: User, charlie: User) -> None:
    approval = ask(owned, bob, SHARED + "    params: {size: 3}\n")
    owned.team = "shop-team"
    owned.deploy(SHARED, application="reports")  # one more whom the change would concern

    deployment = approve(approval=approval, actor=charlie)
    assert deployment.status == "pending_confirmation"
    confirmed = confirm_deployment(deployment=deployment, actor=bob)

    assert confirmed.status == "pending_approval"
    again = Approval.objects.get(deployment=deployment, status="pending")
    assert again.asks["users"] == ["reports/web", "shop/web"]
    assert not deployment.steps.exists()
    assert consumers("pending") == [("billing", "cache")]
    assert owned.done(approve(approval=again, actor=charlie)).status == "succeeded"
    assert owned.resource(CACHE).params == {"size": 3}


def test_every_asked_team_has_to_approve(
    owned: Place, alice: User, bob: User, charlie: User
) -> None:
    owned.team_named("depot-team", alice)
    owned.deploy(
        SHARED.replace("cache:", "store:").replace("name: cache", "name: store"),
        application="depot",
    )
    both = SHARED + SHARED.replace("cache:", "store:").replace("name: cache", "name: store")
    both = both.replace("type: store", "type: cache")
    deployment = owned.submit(both, application="billing", actor=bob)
    first, second = Approval.objects.filter(deployment=deployment).order_by("key")

    assert approve(approval=first, actor=charlie).status == "pending_approval"
    assert not deployment.steps.exists()
    assert consumers("pending") == [("billing", "cache"), ("billing", "store")]
    with pytest.raises(NotAllowedError):
        approve(approval=second, actor=charlie)
    assert approve(approval=second, actor=alice).status == "succeeded"


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


def test_after_a_transfer_the_new_owners_are_asked(
    owned: Place, alice: User, bob: User, charlie: User
) -> None:
    approval = ask(owned, bob)
    depot = owned.team_named("depot-team", alice)
    transfer(resource=owned.resource(CACHE), team=depot, actor=charlie)
    approval.refresh_from_db()

    with pytest.raises(NotAllowedError, match="depot-team"):
        approve(approval=approval, actor=charlie)
    assert approve(approval=approval, actor=alice).status == "pending_confirmation"


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


def test_one_question_per_subject_is_pending(owned: Place, bob: User) -> None:
    approval = ask(owned, bob)
    approval.pk = None

    refused = pytest.raises(IntegrityError, match="approval_one_pending_per_resource")
    with refused, transaction.atomic():
        approval.save(force_insert=True)


def test_a_decision_is_audited(owned: Place, bob: User, charlie: User) -> None:
    approval = ask(owned, bob)
    reject(approval=approval, actor=charlie, comment="no room")

    events = AuditEvent.objects.filter(subject_type="approval").order_by("pk")
    assert [(each.actor, each.action, each.reason) for each in events] == [
        ("bob", "approval.pending", ""),
        ("charlie", "approval.rejected", "no room"),
    ]


@pytest.mark.django_db(transaction=True)
def test_of_two_who_decide_at_once_one_wins_and_the_other_is_told(
    owned: Place, alice: User, bob: User, charlie: User
) -> None:
    owned.team_named("shop-team", alice)
    approval = ask(owned, bob)
    barrier = threading.Barrier(2)
    won: list[str] = []
    told: list[str] = []

    def decide(name: str) -> None:
        try:
            actor, mine = User.objects.get(username=name), Approval.objects.get(pk=approval.pk)
            barrier.wait(5)
            if name == "alice":
                approve(approval=mine, actor=actor)
            else:
                reject(approval=mine, actor=actor, comment="no room")
            won.append(name)
        except ConductorError as error:
            told.append(str(error))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=decide, args=[name]) for name in ("alice", "charlie")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    approval.refresh_from_db()
    deployment = fresh(approval.deployment)
    assert won == [approval.decided_by]
    assert len(told) == 1
    assert f"already by {won[0]}" in told[0]
    assert (approval.status, deployment.status) in {
        ("approved", "succeeded"),
        ("rejected", "rejected"),
    }
    assert consumers("pending") == []
