from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import psycopg
import pytest
from django.conf import settings
from psycopg.sql import SQL, Identifier

from provisioning.models import Resource, ResourceOutput, ResourceState, Worker

pytestmark = pytest.mark.django_db(transaction=True)


def demo(environment: dict[str, str], *arguments: str) -> str:
    """Run the demo as a person does; return what it says."""
    ran = subprocess.run(
        [sys.executable, str(settings.BASE_DIR / "manage.py"), "demo", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    return ran.stdout


@pytest.mark.terraform
def test_the_demo_can_be_repeated_and_leaves_the_database_to_its_user(
    child_environment: dict[str, str],
) -> None:
    first = demo(child_environment)

    assert "+ create    azure-blob-storage.default#archive.storage" in first
    assert "Terraform made orders' storage (a simulation): https://" in first
    assert "= reuse     postgres.default#api.db" in first
    assert "Consumers of the database: 2 (orders/api, reports/dashboard)" in first
    assert "reports is refused by the database: its login is gone." in first
    assert "orders still reaches its database." in first
    assert "Consumers of the database: 1 (orders/api)" in first
    database = Resource.objects.get(key__startswith="shared/orders")
    assert database.state == ResourceState.ACTIVE

    again = demo(child_environment, "--keep")

    assert "Plan: nothing to do, 4 unchanged." in again
    assert "Consumers of the database: 2 (orders/api, reports/dashboard)" in again
    assert Resource.objects.get(key__startswith="shared/orders") == database
    assert all(not psutil.pid_exists(worker.pid) for worker in Worker.objects.all())
    for database_name in ResourceOutput.objects.filter(resource=database, key="name"):
        drop(str(database_name.value))


@pytest.mark.slow
def test_without_terraform_the_demo_says_so_and_cleans_up(
    child_environment: dict[str, str], tmp_path: Path
) -> None:
    without = child_environment | {"CONDUCTOR_TERRAFORM": str(tmp_path / "terraform")}

    said = demo(without, "--teardown")

    assert said.count("is not installed, so the Terraform part, archive.yaml, is left out.") == 1
    assert "azure" not in said
    wrote, read = (line.split("order ", 1)[1] for line in said.splitlines() if "apples" in line)
    assert wrote == read
    assert "password  ••••••" in said
    assert "Nobody can connect to the database any more: it is gone." in said
    assert set(Resource.objects.values_list("state", flat=True)) == {ResourceState.DELETED}


def drop(name: str) -> None:
    """Drop a database that a test has left on the server, and its roles."""
    with psycopg.connect(settings.CONDUCTOR_POSTGRES_ADMIN_URL(), autocommit=True) as server:
        server.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))
        logins = server.execute(
            "SELECT member::regrole::text FROM pg_auth_members JOIN pg_roles ON pg_roles.oid = member"
            " WHERE roleid = %s::regrole AND NOT rolsuper",
            (name,),
        )
        for role in [*(login for (login,) in logins.fetchall()), name]:
            server.execute(SQL("DROP ROLE {}").format(Identifier(role)))
