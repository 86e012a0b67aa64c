from __future__ import annotations

import json

import pytest
from django.contrib.auth.models import User

from provisioning.models import (
    Application,
    AuditEvent,
    Environment,
    Membership,
    Organisation,
    Team,
)
from tests.portal.commands import run


@pytest.fixture
def acme(db: None) -> Organisation:
    return Organisation.objects.create(name="acme")


def listed(*arguments: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(run(*arguments, "list", "--format", "json").out)
    return found


def test_organisation_is_created_and_audited(db: None) -> None:
    ran = run("organisation", "create", "acme")
    assert (ran.status, ran.out) == (0, "Created the organisation acme.\n")
    event = AuditEvent.objects.get()
    assert (event.actor, event.action, event.subject) == (
        "conductor",
        "organisation.created",
        "acme",
    )
    assert not User.objects.get(username="conductor").has_usable_password()
    assert listed("organisation") == [
        {"name": "acme", "teams": 0, "applications": 0, "environments": 0}
    ]


@pytest.mark.parametrize("name", ["Acme", "-acme", "ac me", "a" * 64, "acme\n", ""])
def test_bad_name_is_refused(db: None, name: str) -> None:
    ran = run("organisation", "create", "--", name)
    assert ran.status == 1
    assert ran.err.startswith("The organisation cannot be created. name: ")
    assert not Organisation.objects.exists()
    assert not AuditEvent.objects.exists()


def test_second_of_a_name_is_refused(acme: Organisation) -> None:
    for command in (
        ("organisation", "create", "acme"),
        ("team", "create", "pay"),
        ("application", "create", "shop", "--team", "pay"),
        ("environment", "create", "dev"),
    ):
        run(*command)
        ran = run(*command)
        assert (ran.status, ran.err) == (1, f"The {command[0]} {command[2]} exists already.\n")
    assert [model.objects.count() for model in (Organisation, Team, Application, Environment)] == [
        1,
        1,
        1,
        1,
    ]


def test_team_has_its_people(acme: Organisation, alice: User, bob: User) -> None:
    ran = run("team", "create", "pay", "--owner", "alice", "--member", "bob", "--member", "alice")
    assert ran.status == 0
    assert listed("team") == [{"name": "pay", "owners": ["alice"], "members": ["bob"]}]


def test_team_with_an_unknown_person_is_not_created(acme: Organisation, alice: User) -> None:
    ran = run("team", "create", "pay", "--owner", "alcie")
    assert (ran.status, ran.err) == (1, "There is no active user alcie. Did you mean alice?\n")
    assert not Team.objects.exists()
    assert not Membership.objects.exists()


def test_members_create_their_teams_applications(
    acme: Organisation, alice: User, bob: User
) -> None:
    run("team", "create", "pay", "--member", "alice")
    ran = run("application", "create", "shop", "--team", "pay", "--as", "bob")
    assert ran.status == 1
    assert "bob may not create an application of the team pay" in ran.err
    assert not Application.objects.exists()
    assert run("application", "create", "shop", "--team", "pay", "--as", "alice").status == 0
    assert listed("application") == [{"name": "shop", "team": "pay"}]
    assert AuditEvent.objects.get(action="application.created").actor == "alice"


def test_application_of_an_unknown_team_is_refused(acme: Organisation) -> None:
    run("team", "create", "payments")
    ran = run("application", "create", "shop", "--team", "payment")
    assert (ran.status, ran.err) == (2, "There is no team payment. Did you mean payments?\n")
    assert not Application.objects.exists()


@pytest.mark.parametrize(
    "command",
    [("organisation", "create", "x"), ("team", "create", "x"), ("environment", "create", "x")],
)
def test_what_is_the_platforms_needs_staff(
    acme: Organisation, alice: User, command: tuple[str, ...]
) -> None:
    ran = run(*command, "--as", "alice")
    assert ran.status == 1
    assert ran.err.startswith(f"alice may not create a{'n' * (command[0] != 'team')} {command[0]}")
    assert not AuditEvent.objects.exists()


def test_environment_has_what_it_was_given(acme: Organisation) -> None:
    ran = run(
        "environment", "create", "prod", "--kind", "production", "--variable", "A=1=2",
        "--variable", "B=", "--tag", "cost=7", "--queue", "secure",
    )  # fmt: skip
    assert (ran.status, ran.out) == (0, "Created the production environment prod.\n")
    assert listed("environment") == [
        {
            "name": "prod",
            "kind": "production",
            "queue": "secure",
            "state": "managed",
            "variables": {"A": "1=2", "B": ""},
            "tags": {"cost": "7"},
        }
    ]
    assert run("environment", "list").out.splitlines()[1].split() == [
        "prod", "production", "secure", "managed", "A=1=2,", "B=", "cost=7",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--variable", "A"), "--variable A is not of the form KEY=VALUE."),
        (("--tag", "=x"), "--tag =x is not of the form KEY=VALUE."),
        (("--variable", "A=1", "--variable", "A=2"), "--variable A is given twice."),
        (("--kind", "prod"), "invalid choice: 'prod'"),
    ],
)
def test_wrong_option_is_a_usage_error(
    acme: Organisation, arguments: tuple[str, ...], message: str
) -> None:
    ran = run("environment", "create", "dev", *arguments)
    assert ran.status == 2
    assert message in ran.err
    assert not Environment.objects.exists()


def test_environment_gets_defaults(acme: Organisation) -> None:
    ran = run("environment", "create", "dev", "--defaults", '{"*": {"networking": "isolated"}}')
    assert ran.status == 0, ran.err
    assert Environment.objects.get().defaults == {"*": {"networking": "isolated"}}


@pytest.mark.parametrize("given", ["[]", '{"postgres": 1}', "{"])
def test_defaults_that_are_not_params_by_type_are_refused(acme: Organisation, given: str) -> None:
    ran = run("environment", "create", "dev", "--defaults", given)
    assert ran.status != 0
    assert "defaults" in ran.err
    assert not Environment.objects.exists()
