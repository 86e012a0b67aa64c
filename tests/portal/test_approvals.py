from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from provisioning.models import Approval, Grant, ResourceConsumer
from provisioning.services.approvals import approve
from tests.portal.commands import run
from tests.provisioning.place import Place, score_file

SHARED = """\
  cache:
    type: cache
    reference: {mode: shared, name: cache}
"""
SIZED = SHARED + "    params: {size: 3}\n"
HTMX = {"HX-Request": "true"}


@pytest.fixture
def approval(place: Place, bob: User, charlie: User) -> Approval:
    """Return what bob's application billing asks of charlie, whose team has the cache."""
    place.team = ""
    place.template("cache", outputs={"host": False}, config={"outputs": {"host": "cache.internal"}})
    place.team_named("shop-team", charlie)
    place.team_named("billing-team", bob)
    place.deploy(SHARED)
    deployment = place.submit(SIZED, application="billing", actor=bob)
    return deployment.approvals.get()


def status(approval: Approval) -> tuple[str, str]:
    approval.refresh_from_db()
    approval.deployment.refresh_from_db()
    return approval.status, approval.deployment.status


def test_the_list_tells_what_is_asked(approval: Approval) -> None:
    ran = run("approvals", "list", "--as", "charlie")

    assert ran.status == 0
    assert f"{approval.pk}  billing of the team billing-team asks to use and change size of" in (
        ran.out
    )
    assert 'web.cache wants {"size": 3}' in ran.out
    assert "changes size: null → 3" in ran.out
    assert "also used by shop/web" in ran.out


def test_strangers_see_no_approvals(approval: Approval, alice: User) -> None:
    assert run("approvals", "list", "--as", "alice").out == "Nothing is asked.\n"
    ran = run("approvals", "approve", str(approval.pk), "--as", "alice")

    assert (ran.status, f"There is no approval {approval.pk}" in ran.err) == (2, True)
    assert status(approval) == ("pending", "pending_approval")


def test_an_owner_approves(approval: Approval) -> None:
    ran = run("approvals", "approve", str(approval.pk), "--comment", "fine", "--as", "charlie")

    assert (ran.status, ran.out) == (0, f"Deployment {approval.deployment_id} is running.\n")
    assert status(approval) == ("approved", "running")


def test_an_owner_rejects_with_a_comment(approval: Approval) -> None:
    without = run("approvals", "reject", str(approval.pk), "--as", "charlie")
    assert without.status == 2
    assert status(approval) == ("pending", "pending_approval")

    ran = run("approvals", "reject", str(approval.pk), "--comment", "full", "--as", "charlie")

    assert ran.status == 0
    assert "is rejected. charlie of the asked team shop-team refused" in ran.out
    assert status(approval) == ("rejected", "rejected")


def test_the_requester_does_not_approve_but_withdraws(approval: Approval) -> None:
    refused = run("approvals", "approve", str(approval.pk), "--as", "bob")
    assert (refused.status, "request of their own" in refused.err) == (1, True)
    assert status(approval) == ("pending", "pending_approval")

    assert run("approvals", "withdraw", str(approval.pk), "--as", "bob").status == 0
    assert status(approval) == ("withdrawn", "cancelled")


def test_answered_ones_are_listed_as_json(approval: Approval) -> None:
    run("approvals", "withdraw", str(approval.pk), "--as", "bob")

    assert json.loads(run("approvals", "list", "--format", "json").out) == []
    (found,) = json.loads(run("approvals", "list", "--all", "--format", "json").out)
    assert (found["id"], found["status"], found["resource"]) == (
        approval.pk,
        "withdrawn",
        "shared/cache",
    )


def test_deploy_says_who_was_asked(approval: Approval, place: Place, tmp_path: object) -> None:
    file = place_file(tmp_path)

    ran = run("deploy", file, "--app", "billing", "--env", "dev", "--as", "bob")

    assert ran.status == 0
    assert "Asks the owners of shop-team: billing of the team billing-team asks to" in ran.out
    assert "Waiting for approval: of shared/cache by the team shop-team." in ran.out


def test_deploy_waits_for_the_answer_until_it_is_tired_of_waiting(
    approval: Approval, place: Place, tmp_path: object
) -> None:
    file = place_file(tmp_path)

    ran = run(
        *("deploy", file, "--app", "billing", "--env", "dev", "--as", "bob"),
        *("--wait", "--wait-timeout", "0.3"),
    )

    assert ran.status == 1
    assert "Waiting for approval: of shared/cache by the team shop-team." in ran.out
    assert "Stopped waiting after 0.3 s" in ran.err


def place_file(folder: object) -> str:
    path = f"{folder}/score.yaml"
    with open(path, "w", encoding="utf-8") as file:
        file.write(score_file("web", SIZED))
    return path


def test_share_sets_policies_and_grants(approval: Approval, place: Place) -> None:
    env = ("--env", "dev", "--as", "charlie")

    assert run("share", "policy", "cache", "closed", *env).status == 0
    assert place.resource("shared/cache").sharing_policy == "closed"
    assert run("share", "grant", "cache", "--app", "billing", *env).status == 0
    assert str(Grant.objects.get()) == "shared/cache for application billing"
    assert run("share", "ungrant", "cache", "--app", "billing", *env).status == 0
    assert not Grant.objects.exists()


def test_share_hands_over(approval: Approval, place: Place) -> None:
    ran = run("share", "transfer", "cache", "--team", "billing-team", "--env", "dev")

    assert (ran.status, ran.out) == (0, "shared/cache belongs to the team billing-team now.\n")
    assert place.resource("shared/cache").owner_team.name == "billing-team"


def test_share_is_for_owners(approval: Approval, place: Place, alice: User) -> None:
    place.application("shop", alice)

    ran = run("share", "policy", "cache", "open", "--env", "dev", "--as", "alice")

    assert (ran.status, "whose owners and staff decide" in ran.err) == (1, True)
    assert place.resource("shared/cache").sharing_policy == "approval"


def test_share_revokes_after_showing_the_loss(
    approval: Approval, place: Place, charlie: User
) -> None:
    place.done(approve(approval=approval, actor=charlie))
    revoke = ("share", "revoke", "cache", "--app", "billing", "--workload", "web")
    env = ("--env", "dev", "--as", "charlie")

    shown = run(*revoke, "--plan", *env)
    assert shown.out == "billing/web.cache loses shared/cache with host.\n"
    assert run(*revoke, *env).status == 1
    mine = ResourceConsumer.objects.get(workload__application__name="billing")
    assert mine.state == "active"

    assert run(*revoke, "--reason", "over", *env).status == 0
    mine.refresh_from_db()
    assert mine.state == "revoked"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, "  What it has read stays valid until it is changed: token."),
        (
            {"uses": ["consumers"], "config": {"own": ["token"]}},
            "  Its own token is taken back and works no more.",
        ),
    ],
)
def test_share_tells_what_becomes_of_the_credentials(
    place: Place, charlie: User, more: dict[str, Any], told: str
) -> None:
    place.template("store", outputs={"host": False, "token": True}, **more)
    place.deploy("  store:\n    type: store\n    reference: {mode: shared, name: store}\n")

    shown = run(
        "share", "revoke", "store", "--app", "shop", "--workload", "web", "--plan", "--env", "dev"
    )

    assert shown.out.splitlines()[:2] == [
        "shop/web.store loses shared/store with host, token.",
        told,
    ]


def test_the_page_shows_owners_the_form_alone(approval: Approval, client: Client) -> None:
    for name, decides, withdraws in (("charlie", True, False), ("bob", False, True)):
        client.force_login(User.objects.get(username=name))
        page = client.get("/approvals/").content.decode()
        assert "billing of the team billing-team asks to" in page
        assert ('value="approve"' in page, 'value="withdraw"' in page) == (decides, withdraws)


def test_an_owner_answers_on_the_page(approval: Approval, client: Client, charlie: User) -> None:
    client.force_login(charlie)
    address = f"/approvals/{approval.pk}/"

    refused = client.post(address, {"decision": "reject"}, headers=HTMX)
    assert "A rejection needs a comment" in refused.content.decode()
    assert status(approval) == ("pending", "pending_approval")

    answered = client.post(address, {"decision": "reject", "comment": "full"}, headers=HTMX)
    assert "<html" not in answered.content.decode()
    assert "charlie: full" in answered.content.decode()
    assert status(approval) == ("rejected", "rejected")


def test_without_scripts_the_page_answers_too(
    approval: Approval, client: Client, charlie: User
) -> None:
    client.force_login(charlie)

    answer = client.post(f"/approvals/{approval.pk}/", {"decision": "approve"})

    assert (answer.status_code, answer.headers["Location"]) == (302, "/approvals/")
    assert status(approval) == ("approved", "running")


def test_others_cannot_answer_on_the_page(
    approval: Approval, place: Place, client: Client, alice: User
) -> None:
    client.force_login(alice)
    address = f"/approvals/{approval.pk}/"
    assert client.post(address, {"decision": "approve"}).status_code == 404

    place.application("shop", alice)  # a member, and no owner
    assert client.post(address, {"decision": "approve"}).status_code == 409
    assert status(approval) == ("pending", "pending_approval")


def test_the_deployment_shows_its_questions_and_no_output(
    approval: Approval, client: Client, bob: User
) -> None:
    client.force_login(bob)

    page = client.get(f"/deployments/{approval.deployment_id}/").content.decode()
    answer = client.get(f"/api/v1/deployments/{approval.deployment_id}/").json()

    assert "asked of shop-team" in page
    assert [(each["team"], each["status"]) for each in answer["approvals"]] == [
        ("shop-team", "pending")
    ]
    assert answer["approvals"][0]["asks"]["wanted"] == {"web.cache": {"size": 3}}
    for text in (page, json.dumps(answer)):
        assert "cache.internal" not in text
    outputs = run("outputs", "--app", "billing", "--env", "dev", "--as", "bob", "--reveal")
    assert "cache.internal" not in outputs.out
    assert "cache.internal" not in run("logs", str(approval.deployment_id), "--as", "bob").out


def test_a_protected_environment_is_made(place: Place) -> None:
    assert run("environment", "create", "prod", "--protected").status == 0
    assert place.organisation.environments.get(name="prod").protected is True
