"""A deployment of twenty Terraform resources against the shell script a person would write.

The script works on the same modules, two at a time: once with `init` for each resource, and once
with one `init` per module whose result is copied. All three run in turn, several rounds, and the
medians are compared.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from django.conf import settings

from benchmarks.place import new_place, worker
from provisioning.drivers import get_driver
from provisioning.models import Application, Deployment, Environment
from provisioning.models.deployments import TERMINAL_STATUSES
from provisioning.services.deployments import submit_deployment, submit_teardown
from provisioning.services.people import system_user

MODULES = (
    "azure-resource-group",
    "azure-cosmosdb",
    "azure-blob-storage",
    "application-insights",
    "api-management",
)
VALUES = {
    "application-insights": {"resourceGroupId": "group"},
    "api-management": {"applicationInsightsId": "insights"},
}
RESOURCES = 20
ROUNDS = 5
SCRIPT = """
set -e
one() {
    folder=$WORK/$1-$2
    if [ -n "$REUSE" ]; then cp -R "$WORK/init-$1" "$folder"; else cp -R "$CATALOG/$1" "$folder"; fi
    cd "$folder"
    cp "$WORK/$1.tfvars.json" values.auto.tfvars.json
    [ -n "$REUSE" ] || terraform init -input=false >/dev/null
    terraform apply -auto-approve -input=false >/dev/null
    terraform output -json >outputs.json
}
export -f one
if [ -n "$REUSE" ]; then
    for module in $MODULES; do
        cp -R "$CATALOG/$module" "$WORK/init-$module"
        terraform -chdir="$WORK/init-$module" init -input=false >/dev/null
    done
fi
for module in $MODULES; do for number in $NUMBERS; do echo "$module $number"; done; done |
    xargs -P 2 -L 1 bash -c 'one "$0" "$1"'
"""


class Comparison(NamedTuple):
    """Median seconds of the three ways."""

    conductor: float
    script: float
    reusing_script: float


def measure() -> Comparison | None:
    """Deploy and run the scripts in turn; return None where no terraform is installed."""
    tool = get_driver("terraform").tool()
    if shutil.which("terraform") is None or tool is None or tool[1] is None:
        return None
    (application,), environment = new_place(settings.BASE_DIR / "catalog")
    taken: dict[str, list[float]] = {"conductor": [], "script": [], "reusing": []}
    with worker():
        _deploy(application, environment)  # so that `init` and the connections are there, as later
        for _ in range(ROUNDS):
            taken["conductor"].append(_deploy(application, environment))
            taken["script"].append(_run_script(reuse=False))
            taken["reusing"].append(_run_script(reuse=True))
    return Comparison(*(statistics.median(seconds) for seconds in taken.values()))


def _deploy(application: Application, environment: Environment) -> float:
    """Return the seconds from submitting to success; everything is torn down again after it."""
    lines = ["apiVersion: score.dev/v1b1", "metadata: {name: bench}"]
    lines += ["containers: {main: {image: busybox}}", "resources:"]
    for module in MODULES:
        for number in range(RESOURCES // len(MODULES)):
            params = json.dumps(VALUES.get(module, {}))
            lines.append(f"  {module}-{number}: {{type: {module}, params: {params}}}")
    actor = system_user()
    began = time.perf_counter()
    deployment = submit_deployment(
        application=application,
        environment=environment,
        files=[("bench.yaml", "\n".join(lines))],
        actor=actor,
    )
    _wait(deployment)
    taken = time.perf_counter() - began
    _wait(
        submit_teardown(
            application=application, environment=environment, workloads=None, actor=actor
        )
    )
    return taken


def _wait(deployment: Deployment) -> None:
    deadline = time.monotonic() + 300
    while deployment.status not in TERMINAL_STATUSES:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{deployment} is still {deployment.status} after 300 seconds.")
        time.sleep(0.01)
        deployment.refresh_from_db(fields=["status", "status_reason"])
    if deployment.status != "succeeded":
        raise RuntimeError(f"{deployment} ended {deployment.status}: {deployment.status_reason}")


def _run_script(*, reuse: bool) -> float:
    with tempfile.TemporaryDirectory() as work:
        for module in MODULES:
            values = {"conductor_name": module, **VALUES.get(module, {})}
            (Path(work) / f"{module}.tfvars.json").write_text(json.dumps(values))
        configuration = Path(work) / "terraform.rc"
        configuration.write_text("disable_checkpoint = true\n")
        environment = os.environ | {
            "WORK": work,
            "CATALOG": str(settings.BASE_DIR / "catalog"),
            "MODULES": " ".join(MODULES),
            "NUMBERS": " ".join(map(str, range(RESOURCES // len(MODULES)))),
            "REUSE": "1" if reuse else "",
            "TF_CLI_CONFIG_FILE": str(configuration),
        }
        began = time.perf_counter()
        subprocess.run(["/bin/bash", "-c", SCRIPT], env=environment, check=True)
        return time.perf_counter() - began
