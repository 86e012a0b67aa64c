"""States in S3, on a moto server: a service of which only a killed tool leaves locks."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest

from provisioning.drivers import get_driver
from provisioning.drivers.base import DriverError
from provisioning.drivers.folders import said_folder
from provisioning.drivers.terraform.backends import check_backend, locate
from provisioning.drivers.terraform.keeper import lock_in
from tests.provisioning.drivers.runs import MemoryRun, driver_input
from tests.provisioning.queue.conftest import wait_for

pytestmark = pytest.mark.terraform

DRIVER = get_driver("terraform")
ID = "0a1b2c3d-0000-4000-8000-00000000000a"
KEYS = {"AWS_ACCESS_KEY_ID": "an-id", "AWS_SECRET_ACCESS_KEY": "a-s3cret-key"}
MODULE = """
variable "commands" { default = "true" }
resource "terraform_data" "it" { input = "x" }
resource "terraform_data" "last" {
  input = terraform_data.it.id
  provisioner "local-exec" { command = var.commands }
}
output "id" { value = terraform_data.it.id }
"""


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a moto server on a free port; return its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    output = tmp_path_factory.mktemp("moto") / "output"
    with output.open("wb") as sink:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=sink,
            stderr=sink,
        )

    def listens() -> bool:
        assert server.poll() is None, output.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_for("moto listened", listens, 60)
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait(10)


@pytest.fixture
def bucket(moto: str) -> Any:
    keys = {name.lower(): value for name, value in KEYS.items()}
    service = boto3.resource("s3", endpoint_url=moto, region_name="us-east-1", **keys)
    return service.create_bucket(Bucket="states")


@pytest.fixture
def run(tmp_path: Path) -> MemoryRun:
    environment = {"PATH": os.environ["PATH"], **KEYS}
    return MemoryRun(tmp_path / "work" / "resource", environment=environment)


@pytest.fixture
def resource(moto: str, tmp_path: Path) -> Any:
    backend = {
        "type": "s3",
        "bucket": "states",
        "region": "us-east-1",
        "endpoints": {"s3": moto},
        "use_path_style": True,
        "skip_credentials_validation": True,
        "skip_metadata_api_check": True,
        "skip_requesting_account_id": True,
        "skip_s3_checksum": True,
    }
    check_backend(backend)
    content = tmp_path / "content"
    content.mkdir()
    (content / "main.tf").write_text(MODULE)
    return driver_input(content, state=locate(backend, ID))


def keys_in(bucket: Any) -> list[str]:
    return [each.key for each in bucket.objects.all()]


def test_a_state_lives_in_s3_and_a_lock_that_a_killed_tool_left_is_released(
    bucket: Any, resource: Any, run: MemoryRun, tmp_path: Path
) -> None:
    here, key = tmp_path / "here", f"resources/{ID}.tfstate"
    first = DRIVER.ensure(resource, run)
    assert keys_in(bucket) == [key]
    again = replace(resource, state=first.state_location)
    changing = replace(again, params={"commands": f"touch {here}; sleep 60"})
    (resource.content / "main.tf").write_text(MODULE.replace('"x"', '"y"'))
    changing = replace(changing, content_digest="sha256:other")
    DRIVER.destroy(again, run)

    def kill() -> None:
        wait_for("the module came so far", here.exists, 20)
        psutil.Process(int((said_folder(run.work_folder) / "tool").read_text())).kill()

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(DriverError, match="was killed by signal 9"):
        DRIVER.ensure(changing, run)
    thread.join()
    assert keys_in(bucket) == [key, f"{key}.tflock"]

    run.attempt = 2
    calm = replace(changing, params={})
    with pytest.raises(DriverError, match="Error acquiring the state lock") as locked:
        DRIVER.ensure(calm, run)
    lock = lock_in(str(locked.value))
    assert lock is not None
    assert lock.who.endswith(f"@{socket.gethostname()}")

    run.attempt, run.external_state.left_by = 3, lock.who
    result = DRIVER.ensure(calm, run)
    assert keys_in(bucket) == [key]
    state = json.loads(bucket.Object(key).get()["Body"].read())
    assert state["outputs"]["id"]["value"] == result.outputs["id"]
    assert f"left the lock {lock.id}: it is released" in run.text()
    assert "a-s3cret-key" not in "".join(text for _, _, text in run.unmasked)
    assert "a-s3cret-key" not in json.dumps(dict(result.state_location.metadata))
