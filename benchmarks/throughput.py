"""How many small Terraform deployments an hour one worker does, and how long one takes by itself.

One process submits them for many applications; each makes one resource with a real apply in the
sandbox that the worker uses. The time runs from the first submission to the last success.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from django.conf import settings

from provisioning.drivers import get_driver
from provisioning.models import Application, Deployment, DeploymentStatus, Environment, Worker
from provisioning.models.deployments import TERMINAL_STATUSES
from provisioning.services.catalog import sync_catalog
from provisioning.services.deployments import submit_deployment
from provisioning.services.organisation import (
    create_application,
    create_environment,
    create_organisation,
    create_team,
)
from provisioning.services.people import system_user

APPLICATIONS = 50
DEPLOYMENTS = 300
ALONE = 20
TEMPLATE = """\
name: trivial
type: trivial
version: 1.0.0
driver: terraform
"""
MODULE = """\
variable "number" { type = number }
resource "terraform_data" "it" { input = var.number }
output "number" { value = terraform_data.it.output }
"""
SCORE = """\
apiVersion: score.dev/v1b1
metadata: {{name: web}}
containers: {{main: {{image: busybox}}}}
resources:
  one: {{type: trivial, params: {{number: {number}}}}}
"""


class Throughput(NamedTuple):
    """Deployments an hour under load, milliseconds of one by itself, and the worker's sandbox."""

    an_hour: float
    alone: float
    sandbox: str


def measure() -> Throughput | None:
    """Deploy one by one, then all at once; return None where no terraform is installed."""
    tool = get_driver("terraform").tool()
    if tool is None or tool[1] is None:
        return None
    applications, environment = _prepared()
    with _worker():
        _one(applications[0], environment, 0)  # so that `init` and the connections are there
        alone = [_one(applications[0], environment, number) for number in range(1, ALONE + 1)]
        began = time.monotonic()
        for number in range(DEPLOYMENTS):
            _submit(applications[number % APPLICATIONS], environment, ALONE + 1 + number)
        _wait_for_all(environment)
        took = time.monotonic() - began
        worker = Worker.objects.latest("started_at")
    done = Deployment.objects.filter(environment=environment, status=DeploymentStatus.SUCCEEDED)
    superseded = Deployment.objects.filter(
        environment=environment, status=DeploymentStatus.SUPERSEDED
    )
    counted = done.count() - ALONE - 1
    if counted + superseded.count() != DEPLOYMENTS:
        raise RuntimeError("Some of the measured deployments failed.")
    return Throughput(counted / took * 3600, statistics.median(alone) * 1000, worker.sandbox)


def _prepared() -> tuple[list[Application], Environment]:
    actor = system_user()
    organisation = create_organisation(name=f"bench-{uuid.uuid4().hex[:8]}", actor=actor)
    team = create_team(organisation=organisation, name="bench", actor=actor)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "template.yaml").write_text(TEMPLATE)
        Path(folder, "main.tf").write_text(MODULE)
        sync_catalog(organisation=organisation, source=folder, actor=actor)
    applications = [
        create_application(team=team, name=f"app-{number}", actor=actor)
        for number in range(APPLICATIONS)
    ]
    return applications, create_environment(organisation=organisation, name="dev", actor=actor)


@contextmanager
def _worker() -> Iterator[None]:
    command = [sys.executable, str(settings.BASE_DIR / "manage.py"), "worker", "--processes", "2"]
    worker = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        worker.terminate()
        worker.wait(60)


def _submit(application: Application, environment: Environment, number: int) -> Deployment:
    """Submit, once the application's last deployment has ended, so that none supersedes another."""
    while _unfinished(environment, [application]):
        time.sleep(0.005)
    return submit_deployment(
        application=application,
        environment=environment,
        files=[("score.yaml", SCORE.format(number=number))],
        actor=system_user(),
    )


def _one(application: Application, environment: Environment, number: int) -> float:
    began = time.monotonic()
    _submit(application, environment, number)
    while _unfinished(environment, [application]):
        time.sleep(0.005)
    return time.monotonic() - began


def _unfinished(environment: Environment, applications: Sequence[Application] = ()) -> bool:
    rows = Deployment.objects.filter(environment=environment).exclude(status__in=TERMINAL_STATUSES)
    return (rows.filter(application__in=applications) if applications else rows).exists()


def _wait_for_all(environment: Environment) -> None:
    give_up = time.monotonic() + 600
    while _unfinished(environment):
        if time.monotonic() > give_up:
            raise RuntimeError("The measured deployments did not end within ten minutes.")
        time.sleep(0.01)
