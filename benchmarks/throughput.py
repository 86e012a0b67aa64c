"""How many small Terraform deployments an hour one worker does, and how long one takes by itself.

One process submits them for many applications; each makes one resource with a real apply in the
sandbox that the worker uses. The time runs from the first submission to the last success.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.place import new_place, worker, write_template
from provisioning.drivers import get_driver
from provisioning.models import Application, Deployment, DeploymentStatus, Environment, Worker
from provisioning.models.deployments import TERMINAL_STATUSES
from provisioning.services.deployments import submit_deployment
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
    with worker():
        _one(applications[0], environment, 0)  # so that `init` and the connections are there
        alone = [_one(applications[0], environment, number) for number in range(1, ALONE + 1)]
        began = time.monotonic()
        for number in range(DEPLOYMENTS):
            _submit(applications[number % APPLICATIONS], environment, ALONE + 1 + number)
        _wait_for_all(environment)
        took = time.monotonic() - began
        sandbox = Worker.objects.latest("started_at").sandbox
    done = Deployment.objects.filter(environment=environment, status=DeploymentStatus.SUCCEEDED)
    superseded = Deployment.objects.filter(
        environment=environment, status=DeploymentStatus.SUPERSEDED
    )
    counted = done.count() - ALONE - 1
    if counted + superseded.count() != DEPLOYMENTS:
        raise RuntimeError("Some of the measured deployments failed.")
    return Throughput(counted / took * 3600, statistics.median(alone) * 1000, sandbox)


def _prepared() -> tuple[list[Application], Environment]:
    with tempfile.TemporaryDirectory() as folder:
        write_template(Path(folder), TEMPLATE, main_tf=MODULE)
        return new_place(Path(folder), applications=APPLICATIONS)


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
