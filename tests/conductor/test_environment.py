from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured
from psycopg.conninfo import make_conninfo

from conductor import environment
from conductor.apps import check_environment

SETTINGS = Path(__file__).parents[2] / "conductor" / "settings.py"
OWN_DATABASE = {
    "DATABASE_URL": "postgres://ann:p%40ss@db.example.org:6543/platform",
    "SECRET_KEY": "long-enough",
    "CONDUCTOR_ENCRYPTION_KEYS": Fernet.generate_key().decode(),
}


@pytest.fixture
def var(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("DEBUG", "CONDUCTOR_PROCESS", "CONDUCTOR_HTTPS", *OWN_DATABASE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CONDUCTOR_VAR_DIR", str(tmp_path / "var"))
    return tmp_path / "var"


def load(monkeypatch: pytest.MonkeyPatch, **variables: str) -> dict[str, Any]:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return runpy.run_path(str(SETTINGS))


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("DATABASE_URL", "sqlite:///db.sqlite3", "the scheme 'sqlite' is not supported"),
        ("DATABASE_URL", "mysql://u:p@h/d", "the scheme 'mysql' is not supported"),
        ("DATABASE_URL", "postgres://u:p@h:x/d", "DATABASE_URL cannot be read"),
        ("DATABASE_URL", "postgres://u:p@h:99999/d", "Port out of range"),
        ("DATABASE_URL", "postgres://u:p@h", "needs the name of a database"),
        ("CONDUCTOR_POSTGRES_ADMIN_URL", "http://h/d", "the scheme 'http' is not supported"),
        ("DEBUG", "maybe", "DEBUG must be one of true, false, yes, no, on, off, 1 or 0"),
        ("CONDUCTOR_HTTPS", "2", "CONDUCTOR_HTTPS must be one of true"),
        ("CONDUCTOR_WORKERS", "two", "CONDUCTOR_WORKERS must be a whole number, and is 'two'"),
        ("CONDUCTOR_WORKERS", "0", "CONDUCTOR_WORKERS must be between 1 and 64, and is 0"),
        ("CONDUCTOR_POSTGRES_PORT", "70000", "must be between 0 and 65535, and is 70000"),
        (
            "CONDUCTOR_ENCRYPTION_KEYS",
            "short",
            "Key 1 of CONDUCTOR_ENCRYPTION_KEYS is not a Fernet",
        ),
        ("CONDUCTOR_LOG_LEVEL", "chatty", "CONDUCTOR_LOG_LEVEL must be DEBUG, INFO"),
    ],
)
def test_wrong_value_stops_the_start_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, var: Path, name: str, value: str, sentence: str
) -> None:
    with pytest.raises(ImproperlyConfigured, match=sentence):
        load(monkeypatch, **{name: value})
    assert not var.exists()


@pytest.mark.parametrize("name", ["SECRET_KEY", "CONDUCTOR_ENCRYPTION_KEYS"])
def test_own_database_needs_own_keys(monkeypatch: pytest.MonkeyPatch, var: Path, name: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"{name} must be set when DATABASE_URL is set"):
        load(monkeypatch, **(OWN_DATABASE | {name: ""}))
    assert not var.exists()


def test_own_database_replaces_the_embedded_one(monkeypatch: pytest.MonkeyPatch, var: Path) -> None:
    settings = load(monkeypatch, **OWN_DATABASE)

    database = settings["DATABASES"]["default"]
    assert (database["ENGINE"], database["NAME"], database["HOST"], database["PORT"]) == (
        "django.db.backends.postgresql", "platform", "db.example.org", 6543,
    )  # fmt: skip
    assert (database["USER"], database["PASSWORD"]) == ("ann", "p@ss")
    assert settings["EMBEDDED_SERVER"] is None
    assert settings["SESSION_COOKIE_SECURE"] is True
    assert not var.exists()


def test_own_database_that_vanishes_is_given_up_unless_its_address_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, var: Path
) -> None:
    address = OWN_DATABASE["DATABASE_URL"] + "?connect_timeout=3&tcp_user_timeout=0&sslmode=require"
    database = load(monkeypatch, **(OWN_DATABASE | {"DATABASE_URL": address}))["DATABASES"][
        "default"
    ]
    reach = {
        "connect_timeout": 3,
        "keepalives": 1,
        "keepalives_idle": 5,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 0,
        "sslmode": "require",
    }
    assert {name: database["OPTIONS"].get(name) for name in reach} == reach
    make_conninfo(**reach)  # libpq knows them all


def test_own_database_without_admin_address_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch, var: Path
) -> None:
    monkeypatch.delenv("CONDUCTOR_POSTGRES_ADMIN_URL", raising=False)
    settings = load(monkeypatch, **OWN_DATABASE)
    with pytest.raises(ImproperlyConfigured, match="set CONDUCTOR_POSTGRES_ADMIN_URL"):
        settings["CONDUCTOR_POSTGRES_ADMIN_URL"]()


def test_embedded_default_is_safe_and_reads_nothing(
    monkeypatch: pytest.MonkeyPatch, var: Path
) -> None:
    settings = load(monkeypatch)
    assert settings["DEBUG"] is False
    assert settings["ALLOWED_HOSTS"] == ["localhost", "127.0.0.1", "[::1]"]
    assert settings["DATABASES"]["default"]["ENGINE"] == "conductor.embedded"
    assert not var.exists()


def test_generated_keys_are_private_and_stay(monkeypatch: pytest.MonkeyPatch, var: Path) -> None:
    first, second = load(monkeypatch), load(monkeypatch)
    assert str(first["SECRET_KEY"]) == str(second["SECRET_KEY"])
    assert list(first["ENCRYPTION_KEYS"]) == list(second["ENCRYPTION_KEYS"])
    assert Fernet(first["ENCRYPTION_KEYS"][0]).decrypt(
        Fernet(second["ENCRYPTION_KEYS"][0]).encrypt(b"kept")
    ) == b"kept"  # fmt: skip
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in var.iterdir()}
    assert modes == {"secret-key": "0o600", "encryption-keys": "0o600"}


def test_web_process_pools_and_workers_keep_one_connection(
    monkeypatch: pytest.MonkeyPatch, var: Path
) -> None:
    worker = load(monkeypatch)["DATABASES"]["default"]
    web = load(monkeypatch, CONDUCTOR_PROCESS="web", CONDUCTOR_WEB_CONNECTIONS="4")
    assert worker["CONN_MAX_AGE"] is None
    assert "pool" not in worker["OPTIONS"]
    assert web["DATABASES"]["default"]["OPTIONS"]["pool"] == {"min_size": 1, "max_size": 4}
    assert web["DATABASES"]["default"]["CONN_MAX_AGE"] == 0


def test_misspelt_variable_is_named_with_the_likely_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONDUCTOR_WORKRES", "4")
    monkeypatch.setenv("CONDUCTOR_DRIVER_ENV_AWS_REGION", "eu-north-1")
    monkeypatch.setenv("CONDUCTOR_SECRET_DB", "x")
    monkeypatch.setenv("CONDUCTOR_SECRETS_DIR", "/run/secrets")
    warnings = {warning.msg: warning.hint for warning in check_environment()}
    assert "AWS_REGION" not in str(warnings)
    assert "CONDUCTOR_SECRET" not in str(warnings)
    message = "The environment variable CONDUCTOR_WORKRES is not a setting of Conductor."
    assert warnings[message] == "Did you mean CONDUCTOR_WORKERS?"


def test_a_token_that_could_be_guessed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONDUCTOR_METRICS_TOKEN", "short")

    with pytest.raises(ImproperlyConfigured, match="must have at least 16 characters"):
        environment.secret("CONDUCTOR_METRICS_TOKEN", minimum=16)

    monkeypatch.delenv("CONDUCTOR_METRICS_TOKEN")
    assert environment.secret("CONDUCTOR_METRICS_TOKEN", minimum=16) == ""


def test_unset_and_empty_list_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOWED_HOSTS", " , ")
    assert environment.words("ALLOWED_HOSTS", ["localhost"]) == ["localhost"]
    monkeypatch.setenv("ALLOWED_HOSTS", "a.example.org, b.example.org")
    assert environment.words("ALLOWED_HOSTS") == ["a.example.org", "b.example.org"]


def test_wrong_value_ends_a_command_with_the_sentence_alone() -> None:
    ran = subprocess.run(
        [sys.executable, "manage.py", "check"],
        env=os.environ | {"CONDUCTOR_WORKERS": "many"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    sentence = "CONDUCTOR_WORKERS must be a whole number, and is 'many'.\n"
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", sentence)
