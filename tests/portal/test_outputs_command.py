from __future__ import annotations

import json
import subprocess

import pytest
from django.contrib.auth.models import User
from hypothesis import given
from hypothesis import strategies as st

from portal.management.settings_text import dotenv_quote, settings_lines, variable_name
from provisioning.models import AuditEvent
from tests.portal.commands import run
from tests.provisioning.place import Place

TARGET = ["--app", "shop", "--env", "dev"]
SECRET = 'it\'s $HOME "and"\nmore'


@pytest.fixture
def shop(place: Place) -> Place:
    """Return a place with a deployed database."""
    place.template(
        "postgres",
        outputs={"host": False, "pass.word": True},
        config={"outputs": {"host": "db.internal", "pass.word": SECRET}},
    )
    place.deploy("  my-db:\n    type: postgres\n")
    return place


def test_secrets_are_masked_and_nothing_is_recorded(shop: Place) -> None:
    ran = run("outputs", *TARGET, "--format", "json")

    assert json.loads(ran.out) == {"web": {"my-db": {"host": "db.internal", "pass.word": "••••••"}}}
    assert not AuditEvent.objects.filter(action="outputs.revealed").exists()


def test_revealing_shows_secrets_and_is_recorded(shop: Place) -> None:
    ran = run("outputs", *TARGET, "--format", "json", "--reveal")

    assert json.loads(ran.out)["web"]["my-db"]["pass.word"] == SECRET
    assert AuditEvent.objects.get(action="outputs.revealed").actor == "conductor"


def test_a_shell_reads_back_what_was_written(shop: Place) -> None:
    lines = run("outputs", *TARGET, "--format", "shell", "--reveal").out

    said = subprocess.run(
        ["/bin/sh", "-c", f'{lines}printf "%s|%s" "$MY_DB_HOST" "$MY_DB_PASS_WORD"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == f"db.internal|{SECRET}"


def test_dotenv_quotes_what_needs_it(shop: Place) -> None:
    ran = run("outputs", *TARGET, "--format", "dotenv", "--reveal")

    assert ran.out == ('MY_DB_HOST=db.internal\nMY_DB_PASS_WORD="it\'s \\$HOME \\"and\\"\\nmore"\n')


def test_the_workload_is_part_of_the_name_if_there_are_several(shop: Place) -> None:
    shop.deploy("  db:\n    type: postgres\n", workload="api")

    both = run("outputs", *TARGET, "--format", "dotenv").out
    one = run("outputs", *TARGET, "--format", "dotenv", "--workload", "api").out

    assert both.splitlines()[0] == "API_DB_HOST=db.internal"
    assert "WEB_MY_DB_HOST=db.internal" in both
    assert one.splitlines()[0] == "DB_HOST=db.internal"


def test_text_is_for_people(shop: Place) -> None:
    assert run("outputs", *TARGET).out == (
        "web\n  my-db.host       db.internal\n  my-db.pass.word  ••••••\n"
    )


def test_without_resources_it_says_so(place: Place) -> None:
    place.application("shop")

    assert run("outputs", *TARGET).out == "shop has no resources in dev yet.\n"


def test_an_unknown_workload_is_a_wrong_call(shop: Place) -> None:
    ran = run("outputs", *TARGET, "--workload", "wep")

    assert ran.status == 2
    assert "There is no workload wep. Did you mean web?" in ran.err


def test_a_stranger_sees_nothing(shop: Place, bob: User) -> None:
    ran = run("outputs", *TARGET, "--reveal", "--as", "bob")

    assert ran.status == 2
    assert ran.out == ""
    assert not AuditEvent.objects.filter(action="outputs.revealed").exists()


def test_names_that_collide_are_refused() -> None:
    outputs = {"web": {"a-b": {"c": 1}, "a.b": {"c": 2}}}

    with pytest.raises(ValueError, match=r"web\.a-b\.c and web\.a\.b\.c would both be A_B_C"):
        list(settings_lines(outputs, "dotenv"))


def test_values_that_are_no_text_are_json() -> None:
    outputs = {"web": {"db": {"port": 5432, "hosts": ["a", "b"]}}}

    assert list(settings_lines(outputs, "dotenv")) == [
        "DB_PORT=5432",
        'DB_HOSTS=\'["a", "b"]\'',
    ]


@given(st.lists(st.text(min_size=1), min_size=1))
def test_a_name_is_always_one_that_a_shell_takes(parts: list[str]) -> None:
    name = variable_name(*parts)

    assert name.isascii()
    assert name.isidentifier()


@given(st.text(alphabet=st.characters(exclude_characters="\0", codec="utf-8")))
def test_a_quoted_value_stays_on_one_line(text: str) -> None:
    quoted = dotenv_quote(text)

    assert "\n" not in quoted
    assert "\r" not in quoted
