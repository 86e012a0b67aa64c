"""States that Terraform itself keeps elsewhere, with the real binary."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psutil
import psycopg
import psycopg.sql
import pytest
from django.conf import settings

from provisioning.drivers import get_driver
from provisioning.drivers.base import DriverError, StoppedError
from provisioning.drivers.folders import said_folder
from provisioning.drivers.terraform.backends import check_backend, locate
from tests.conftest import find_terraform
from tests.provisioning.drivers.runs import MemoryRun, driver_input
from tests.provisioning.queue.conftest import wait_for

pytestmark = pytest.mark.terraform

DRIVER = get_driver("terraform")
MODULE = """
variable "size" { default = "small" }
variable "commands" { default = "true" }
resource "terraform_data" "it" { input = var.size }
resource "terraform_data" "last" {
  input = terraform_data.it.id
  provisioner "local-exec" { command = var.commands }
}
output "size" { value = terraform_data.it.output }
output "secret" {
  value     = "s3cret-${terraform_data.it.id}"
  sensitive = true
}
"""


@pytest.fixture
def run(tmp_path: Path) -> MemoryRun:
    return MemoryRun(tmp_path / "work" / "resource")


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Any]:
    """Return a function that makes the input of a resource whose state is where a backend says."""
    content = tmp_path / "content"
    content.mkdir()
    (content / "main.tf").write_text(MODULE)

    def resource(backend: dict[str, Any], **params: Any) -> Any:
        check_backend(backend)
        id_ = "0a1b2c3d-0000-4000-8000-00000000000a"
        return driver_input(content, params=params, state=locate(backend, id_))

    return resource


@pytest.fixture
def local(tmp_path: Path, make: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that makes the input of a resource whose state is in a folder."""
    return lambda **params: make({"type": "local", "path": str(tmp_path / "states")}, **params)


def state_in(folder: Path) -> dict[str, Any]:
    (file,) = folder.glob("*/terraform.tfstate")
    document: dict[str, Any] = json.loads(file.read_text())
    return document


def ids(state: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["instances"][0]["attributes"]["id"] for each in state["resources"]}


def test_a_state_is_made_changed_and_emptied_where_it_is(
    local: Any, run: MemoryRun, tmp_path: Path
) -> None:
    first = DRIVER.ensure(local(), run)
    made = ids(state_in(tmp_path / "states"))
    assert first.outputs == {"size": "small", "secret": f"s3cret-{made['it']}"}
    assert first.sensitive == {"secret"}
    second = DRIVER.ensure(replace(local(size="large"), state=first.state_location), run)
    assert second.outputs["size"] == "large"
    assert ids(state_in(tmp_path / "states")) == made
    DRIVER.destroy(replace(local(), state=second.state_location), run)
    assert state_in(tmp_path / "states")["resources"] == []
    assert run.states == []
    assert "s3cret-" not in run.text()
    assert f"s3cret-{made['it']}" in run.masked
    assert not run.work_folder.exists()


def test_the_location_tells_the_version_and_no_secret(local: Any, run: MemoryRun) -> None:
    location = DRIVER.ensure(local(), run).state_location
    assert location is not None
    assert (location.backend, location.location) == (
        "local",
        location.metadata["config"]["path"],
    )
    assert set(location.metadata) == {"config", "serial", "lineage"}


def test_the_module_is_fetched_once_and_initialised_each_time(local: Any, run: MemoryRun) -> None:
    DRIVER.ensure(local(), run)
    DRIVER.ensure(local(size="large"), run)
    assert run.text().count("Initializing provider plugins") == 1


def test_a_module_of_modules_is_initialised(local: Any, run: MemoryRun) -> None:
    resource = local()
    (resource.content / "inner").mkdir()
    (resource.content / "inner" / "main.tf").write_text('output "x" {\n  value = "inner"\n}\n')
    (resource.content / "main.tf").write_text(
        'module "inner" {\n  source = "./inner"\n}\noutput "x" {\n  value = module.inner.x\n}\n'
    )
    assert DRIVER.ensure(resource, run).outputs == {"x": "inner"}


def test_a_state_that_has_gone_is_not_made_again(
    local: Any, run: MemoryRun, tmp_path: Path
) -> None:
    result = DRIVER.ensure(local(), run)
    (file,) = (tmp_path / "states").glob("*/terraform.tfstate")
    file.unlink()
    again = replace(local(), state=result.state_location)
    for act in (DRIVER.ensure, DRIVER.destroy):
        with pytest.raises(DriverError, match=r"is gone, and this resource's is of lineage") as no:
            act(again, run)
        assert no.value.permanent is True
    assert not list((tmp_path / "states").glob("*/terraform.tfstate"))


def test_a_state_of_another_lineage_is_left_alone(
    local: Any, run: MemoryRun, tmp_path: Path
) -> None:
    result = DRIVER.ensure(local(), run)
    (file,) = (tmp_path / "states").glob("*/terraform.tfstate")
    other = json.loads(file.read_text()) | {"lineage": "someone-elses"}
    file.write_text(json.dumps(other))
    with pytest.raises(DriverError, match="is of lineage someone-elses, and this resource's"):
        DRIVER.ensure(replace(local(size="large"), state=result.state_location), run)
    assert json.loads(file.read_text()) == other


def test_a_failure_leaves_no_suspicion_of_what_the_state_holds(
    local: Any, run: MemoryRun, tmp_path: Path
) -> None:
    with pytest.raises(DriverError, match="exit status 3"):
        DRIVER.ensure(local(commands="exit 3"), run)
    assert set(ids(state_in(tmp_path / "states"))) == {"it", "last"}
    assert (run.external_state.events, run.external_state.orphans) == ({}, frozenset())
    assert not run.work_folder.exists()


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
def test_what_is_stopped_is_known_afterwards(
    local: Any, run: MemoryRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    # Of a place that is as slow as those in a cloud, and that an interrupt reaches in the middle.
    slow = tmp_path / "terraform"
    slow.write_text(
        '#!/bin/sh\n[ "$1 $2" = "state pull" ] && { sleep 0.5 || exit; }\n'
        f'exec {find_terraform()} "$@"\n'
    )
    slow.chmod(0o755)
    monkeypatch.setenv("CONDUCTOR_TERRAFORM", str(slow))
    here = tmp_path / "here"

    def stop() -> None:
        wait_for("the module came so far", here.exists, 20)
        run.told = how

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(StoppedError, match=rf"\({how}\); its state is stored"):
        DRIVER.ensure(local(commands=f"touch {here}; sleep 60"), run)
    thread.join()
    assert "it" in ids(state_in(tmp_path / "states"))
    assert (run.external_state.events, run.external_state.orphans) == ({}, frozenset())


def killed(resource: Any, run: MemoryRun, here: Path) -> None:
    """Apply a module, and kill the tool in the middle of it."""

    def kill() -> None:
        wait_for("the module came so far", here.exists, 20)
        psutil.Process(int((said_folder(run.work_folder) / "tool").read_text())).kill()

    thread = threading.Thread(target=kill)
    thread.start()
    params = {**resource.params, "commands": f"touch {here}; sleep 60"}
    with pytest.raises(DriverError, match="was killed by signal 9"):
        DRIVER.ensure(replace(resource, params=params), run)
    thread.join()


def test_a_killed_tool_leaves_its_state_and_the_next_attempt_goes_on(
    local: Any, run: MemoryRun, tmp_path: Path
) -> None:
    killed(local(), run, tmp_path / "here")
    made = ids(state_in(tmp_path / "states"))
    run.attempt = 2
    DRIVER.ensure(local(), run)
    assert ids(state_in(tmp_path / "states"))["it"] == made["it"]
    assert "terraform_data.last: its making was begun, and its id was never heard" in run.text()


def test_a_template_may_want_a_person_to_look_before_anything_is_made_again(
    local: Any, run: MemoryRun, tmp_path: Path
) -> None:
    resource = replace(local(), config={"recovery": "stop"})
    killed(resource, run, tmp_path / "here")
    run.attempt = 2
    with pytest.raises(DriverError, match="1 changes are still to be made") as stopped:
        DRIVER.ensure(resource, run)
    assert stopped.value.permanent is True
    assert set(ids(state_in(tmp_path / "states"))) == {"it"}
    run.attempt, run.step = 1, 2
    DRIVER.ensure(resource, run)
    assert set(ids(state_in(tmp_path / "states"))) == {"it", "last"}


# --- pg, on the server that comes along -----------------------------------------------------------


@pytest.fixture
def database() -> Iterator[str]:
    """Return the address of an empty database."""
    admin = settings.CONDUCTOR_POSTGRES_ADMIN_URL()
    name = f"states_{uuid4().hex}"
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        yield urlsplit(admin)._replace(path=f"/{name}", query="sslmode=disable").geturl()
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def test_a_state_in_postgresql_is_reached_by_a_credential_of_the_environment(
    make: Any, run: MemoryRun, database: str
) -> None:
    run.environment = {**run.environment, "PG_CONN_STR": database}
    resource = make({"type": "pg"})
    first = DRIVER.ensure(resource, run)
    assert first.state_location is not None
    assert urlsplit(database).password not in json.dumps(first.state_location.metadata)
    again = replace(resource, state=first.state_location, params={"size": "large"})
    assert DRIVER.ensure(again, run).outputs["size"] == "large"
    schema = first.state_location.metadata["config"]["schema_name"]
    with psycopg.connect(database) as connection:
        connection.execute(
            psycopg.sql.SQL("SET search_path = {}").format(psycopg.sql.Identifier(schema))
        )
        (stored,) = connection.execute("SELECT data FROM states").fetchall()
    assert len(json.loads(stored[0])["resources"]) == 2
    DRIVER.destroy(again, run)


# --- A server of somebody else's that fails -------------------------------------------------------


@dataclass
class Broken:
    """Be an HTTP state server of which writing fails for as long as it is `broken`."""

    states: dict[str, bytes] = field(default_factory=dict)
    broken: bool = True
    address: str = ""


@pytest.fixture
def elsewhere() -> Iterator[Broken]:
    server = Broken()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state = server.states.get(self.path)
            self.send_response(200 if state else 204)
            self.end_headers()
            self.wfile.write(state or b"")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(500 if server.broken else 200)
            self.end_headers()
            if not server.broken:
                server.states[self.path] = body

        def log_message(self, *words: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        server.address = f"http://127.0.0.1:{listening.server_address[1]}"
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield server
        listening.shutdown()
        thread.join()


@pytest.mark.parametrize("nowhere", [False, True])
def test_a_state_that_could_not_be_written_is_kept_and_written_later(
    make: Any, run: MemoryRun, elsewhere: Broken, nowhere: bool
) -> None:
    backend = {
        "type": "custom",
        "backend": "http",
        "config": {"address": elsewhere.address + "/${resource_id}"},
    }
    run.environment = {**run.environment, "TF_HTTP_RETRY_MAX": "0"}
    commands = "mkdir errored.tfstate" if nowhere else "true"
    with pytest.raises(DriverError, match="Failed to save state"):
        DRIVER.ensure(make(backend, commands=commands), run)
    (rescued,) = run.states
    made = ids(json.loads(rescued))
    assert set(made) == {"it", "last"}
    assert ("Terraform could not write its state; it was rescued." in run.text()) is nowhere
    assert "s3cret-" not in "".join(text for _, _, text in run.unmasked)
    assert run.external_state.orphans == frozenset()
    assert not run.work_folder.exists()

    elsewhere.broken, run.attempt = False, 2
    result = DRIVER.ensure(make(backend, commands=commands), run)
    (state,) = elsewhere.states.values()
    assert ids(json.loads(state)) == made
    assert result.outputs["secret"] == f"s3cret-{made['it']}"
    assert "that an earlier run could not write is written now" in run.text()
