from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, connections, transaction
from django.utils import timezone

from provisioning.exceptions import ConductorError
from provisioning.models import (
    Approval,
    AuditEvent,
)
from provisioning.services.approvals import (
    AlreadyDecidedError,
    CommentMissingError,
    approve,
    expire_approvals,
    reject,
    withdraw,
)
from provisioning.services.deployments import confirm_deployment
from provisioning.services.people import NotAllowedError
from provisioning.services.sharing import transfer
from provisioning.workers.regular import expire
from provisioning.workers.tasks import work
from tests.provisioning.place import Place
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
    expire()

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


def test_an_approved_deployment_to_a_protected_environment_is_asked_about_with_another_plan(
    owned: Place, bob: User, charlie: User
) -> None:
    owned.environment.protected = True
    owned.environment.save()
    owned.team = "shop-team"
    mine = "  mine:\n    type: database\n    reference: {mode: shared, name: mine}\n"
    approval = Approval.objects.get(deployment=owned.submit(mine, actor=bob))
    other = owned.submit(mine, application="reports", actor=bob)
    owned.done(approve(approval=other.approvals.get(), actor=charlie))

    deployment = approve(approval=approval, actor=charlie)
    assert deployment.status == "pending_confirmation"
    confirmed = confirm_deployment(deployment=deployment, actor=bob)

    assert confirmed.status == "pending_approval"
    assert not deployment.steps.exists()
    again = deployment.approvals.get(status="pending")
    assert owned.done(approve(approval=again, actor=charlie)).status == "succeeded"
