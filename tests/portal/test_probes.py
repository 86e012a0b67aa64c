from __future__ import annotations

from typing import Any

import pytest
from django.db import OperationalError
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client

from portal.views import probes


def test_the_process_says_that_it_lives_without_a_database(client: Client) -> None:
    answer = client.get("/healthz")  # the test would fail if it used one

    assert (answer.status_code, answer.content) == (200, b"It lives.\n")


def test_it_is_ready_with_a_migrated_database(client: Client, db: None) -> None:
    answer = client.get("/readyz")

    assert (answer.status_code, answer.content) == (200, b"It is ready.\n")
    assert "no-store" in answer.headers["Cache-Control"]


def test_it_is_not_ready_with_an_older_database(client: Client, db: None) -> None:
    newest = MigrationRecorder.Migration.objects.filter(app="provisioning").latest("name")
    newest.delete()

    answer = client.get("/readyz")

    assert answer.status_code == 503
    assert answer.content == b"The database lacks 1 migrations: run manage.py migrate.\n"


def test_it_is_not_ready_without_a_database(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Any:
        raise OperationalError("connection to 10.0.0.1 as conductor failed")

    monkeypatch.setattr(probes, "missing_migrations", fail)

    answer = client.get("/readyz")

    assert (answer.status_code, answer.content) == (503, b"The database cannot be reached.\n")
