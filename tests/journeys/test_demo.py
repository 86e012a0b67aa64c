from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from django.conf import settings

from provisioning.models import Resource, ResourceOutput, ResourceState, Worker

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


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


def test_the_demo_proves_the_shared_database_and_cleans_up(
    child_environment: dict[str, str],
) -> None:
    first = demo(child_environment)

    assert "= reuse     postgres.default#api.db" in first
    assert "Consumers of the database: 2 (orders/api, reports/dashboard)" in first
    assert "orders still reaches its database." in first
    assert "Consumers of the database: 1 (orders/api)" in first
    database = Resource.objects.get(key__startswith="shared/orders")
    assert database.state == ResourceState.ACTIVE
    secret = ResourceOutput.objects.get(resource=database, key="password")
    assert secret.value is None
    assert "••••••" in first
    wrote, read = (line.split("order ", 1)[1] for line in first.splitlines() if "apples" in line)
    assert wrote == read

    again = demo(child_environment, "--teardown")

    assert "nothing to do, " in again
    assert "Nobody can connect to the database any more: it is gone." in again
    assert not Resource.objects.exclude(state=ResourceState.DELETED).exists()
    assert all(not psutil.pid_exists(worker.pid) for worker in Worker.objects.all())


def test_without_terraform_the_demo_says_so_and_succeeds(
    child_environment: dict[str, str], tmp_path: Path
) -> None:
    without = child_environment | {"CONDUCTOR_TERRAFORM": str(tmp_path / "terraform")}

    said = demo(without, "--keep")

    assert said.count("is not installed, so the Terraform part, archive.yaml, is left out.") == 1
    assert "azure" not in said
    assert "Consumers of the database: 2 (orders/api, reports/dashboard)" in said
    demo(without, "--teardown")


@pytest.mark.terraform
def test_with_terraform_a_module_is_part_of_the_demo(child_environment: dict[str, str]) -> None:
    said = demo(child_environment, "--keep")

    assert "+ create    azure-blob-storage.default#archive.storage" in said
    assert "Terraform made orders' storage (a simulation): https://" in said
    demo(child_environment, "--teardown")
