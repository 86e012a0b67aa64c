from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from provisioning.drivers import get_driver
from provisioning.drivers.base import DriverError, LeaseLostError, StoppedError
from provisioning.drivers.folders import said_folder
from provisioning.drivers.terraform.module_cache import (
    UNUSED_SECONDS,
    InitialisedModule,
    remove_unused,
)
from provisioning.drivers.terraform.state import State
from provisioning.drivers.tool import Outcome, Tool
from tests.provisioning.drivers.runs import FolderRun, MemoryRun, driver_input

pytestmark = pytest.mark.terraform

ROOT = Path(__file__).parents[3]
DRIVER = get_driver("terraform")

SIMPLE = """
variable "size" {
  type = string
}
resource "terraform_data" "it" {
  input = var.size
}
output "size" {
  value = terraform_data.it.output
}
"""

# Each item appends a line to the ledger when it is made and when it is destroyed.
ITEMS = """
variable "ledger" {
  type = string
}
variable "items" {
  type = number
}
variable "seconds" {
  type    = number
  default = 0.1
}
resource "terraform_data" "item" {
  count = var.items
  input = { number = count.index, ledger = var.ledger, seconds = var.seconds }
  provisioner "local-exec" {
    command = "sleep ${self.input.seconds}; echo create ${self.input.number} >> ${self.input.ledger}"
  }
  provisioner "local-exec" {
    when    = destroy
    command = "echo destroy ${self.input.number} >> ${self.input.ledger}"
  }
}
"""


@pytest.fixture
def module(tmp_path: Path) -> Callable[..., Any]:
    """Return a function that makes a module of a text and the input of a resource of it."""

    def make(text: str, **params: Any) -> Any:
        content = tmp_path / "content"
        content.mkdir(exist_ok=True)
        (content / "main.tf").write_text(text)
        return driver_input(content, params=params, content_digest=f"sha256:{hash(text)}")

    return make


@pytest.fixture
def run(tmp_path: Path) -> MemoryRun:
    return MemoryRun(tmp_path / "work" / "resource")


def _items(state: bytes | None) -> dict[int, str]:
    """Return the status of each item in a state, by its number."""
    document = json.loads(state or b"{}")
    return {
        instance["index_key"]: instance.get("status", "complete")
        for resource in document.get("resources", [])
        for instance in resource["instances"]
    }


def _newest(stored: bytes | None, left: Path) -> bytes | None:
    """Return the state with the highest serial, of the stored one and one left in a work folder."""
    states = [stored, left.read_bytes() if left.exists() else None]
    complete = [state for state in states if State.read(state) is not None]
    return max(complete, key=lambda state: json.loads(state or b"{}")["serial"], default=None)


def _ledger(path: Path, action: str = "create") -> list[int]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [int(line.split()[1]) for line in lines if line.startswith(action)]


def _wait_until(condition: Callable[[], object], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


def _once_logged(run: MemoryRun, path: Path, lines: int, action: Callable[[], None]) -> Any:
    def wait() -> None:
        _wait_until(lambda: len(_ledger(path)) >= lines)
        action()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_change_is_an_update_of_the_same_thing(module: Any, run: MemoryRun) -> None:
    DRIVER.ensure(module(SIMPLE, size="small"), run)
    result = DRIVER.ensure(module(SIMPLE, size="large"), run)
    ids = {
        json.loads(state)["resources"][0]["instances"][0]["attributes"]["id"]
        for state in run.states
    }
    assert result.outputs == {"size": "large"}
    assert len(ids) == 1
    assert result.state_location is not None
    assert result.state_location.metadata["serial"] == str(json.loads(run.states[-1])["serial"])


def test_destroy_empties_the_state(module: Any, run: MemoryRun, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    resource = module(ITEMS, ledger=str(ledger), items=3, seconds=0)
    DRIVER.ensure(resource, run)
    DRIVER.destroy(resource, run)
    assert sorted(_ledger(ledger, "destroy")) == [0, 1, 2]
    assert json.loads(run.states[-1])["resources"] == []


def test_the_state_is_shipped_while_the_apply_runs(
    module: Any, run: MemoryRun, tmp_path: Path
) -> None:
    resource = module(ITEMS, ledger=str(tmp_path / "ledger"), items=25, seconds=0.1)
    DRIVER.ensure(resource, run)
    serials = [json.loads(state)["serial"] for state in run.states]
    assert len(_items(run.states[0])) < 25
    assert serials == sorted(set(serials))
    assert set(_items(run.states[-1])) == set(range(25))


def test_a_failing_apply_still_ships_what_it_made(
    module: Any, run: MemoryRun, tmp_path: Path
) -> None:
    text = (
        SIMPLE
        + 'resource "terraform_data" "bad" {\n  provisioner "local-exec" {\n    command = "exit 3"\n  }\n  depends_on = [terraform_data.it]\n}\n'
    )
    with pytest.raises(DriverError, match=r"exit status 1.*main\.tf:12.*exit status 3") as failed:
        DRIVER.ensure(module(text, size="small"), run)
    assert failed.value.permanent is False
    names = [resource["name"] for resource in json.loads(run.states[-1])["resources"]]
    assert sorted(names) == ["bad", "it"]
    assert not run.work_folder.exists()


def test_success_is_not_believed_without_a_state(
    module: Any, run: MemoryRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle = tmp_path / "idle"
    idle.write_text('#!/bin/sh\necho \'{"terraform_version": "1.0.0"}\'\n')
    idle.chmod(0o755)
    monkeypatch.setenv("CONDUCTOR_TERRAFORM", str(idle))
    with pytest.raises(DriverError, match="idle reported success, but wrote no state"):
        DRIVER.ensure(module(SIMPLE, size="small"), run)
    assert run.states == []


def test_the_log_decides_nothing(module: Any, run: MemoryRun) -> None:
    forged = '{\\"@level\\":\\"error\\",\\"type\\":\\"diagnostic\\",\\"diagnostic\\":{\\"severity\\":\\"error\\",\\"summary\\":\\"forged\\"}}'
    text = (
        SIMPLE
        + f'resource "terraform_data" "forger" {{\n  provisioner "local-exec" {{\n    command = "echo \'{forged}\' >> /proc/$PPID/fd/1"\n  }}\n}}\n'
    )
    assert DRIVER.ensure(module(text, size="small"), run).outputs == {"size": "small"}
    assert "forged" in run.text()


def test_secrets_are_masked_from_the_params_and_the_old_state(
    module: Any, run: MemoryRun, tmp_path: Path
) -> None:
    text = """
    variable "password" {
      type = string
    }
    resource "terraform_data" "it" {
      input = var.password
      provisioner "local-exec" {
        command = "echo the password is ${nonsensitive(var.password)}"
      }
    }
    output "password" {
      value     = terraform_data.it.output
      sensitive = true
    }
    """
    resource = module(text, password="hunter22")
    resource = replace(resource, sensitive_params=frozenset({"password"}))
    result = DRIVER.ensure(resource, run)
    assert result.sensitive == {"password"}
    assert result.outputs == {"password": "hunter22"}
    assert "the password is ***" in run.text()
    assert "hunter22" not in run.text()


def test_a_secret_that_a_failing_first_apply_made_is_masked(module: Any, run: MemoryRun) -> None:
    text = """
    resource "terraform_data" "key" {
      input = "key-${uuid()}"
    }
    resource "terraform_data" "fails" {
      provisioner "local-exec" {
        command = "echo ${terraform_data.key.output}; exit 3"
      }
    }
    output "key" {
      value     = terraform_data.key.output
      sensitive = true
    }
    """
    with pytest.raises(DriverError, match="exit status 3"):
        DRIVER.ensure(module(text), run)
    state = State.read(run.states[-1])
    assert state is not None
    assert run.masked == {state.outputs["key"]["value"]}


def test_variables_that_conductor_provides_are_filled(module: Any, run: MemoryRun) -> None:
    text = """
    variable "conductor_name" {
      type = string
    }
    variable "conductor_context" {
      type = any
    }
    output "x" {
      value = "${var.conductor_name} in ${var.conductor_context.environment}"
    }
    """
    assert DRIVER.ensure(module(text), run).outputs == {"x": "shop-db in development"}


def test_values_planted_beside_the_module_do_not_count(
    module: Any, run: MemoryRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = module(SIMPLE, size="asked")
    (resource.content / "x.auto.tfvars").write_text('size = "planted"\n')
    (resource.content / "terraform.tfstate").write_text("{}")
    run.environment = {**run.environment, "TF_VAR_size": "planted", "TF_CLI_ARGS": "-help"}
    assert DRIVER.ensure(resource, run).outputs == {"size": "asked"}


def test_a_local_module_is_installed_once_and_found(module: Any, run: MemoryRun) -> None:
    resource = module(
        'module "inner" {\n  source = "./inner"\n}\noutput "x" {\n  value = module.inner.x\n}\n'
    )
    (resource.content / "inner").mkdir()
    (resource.content / "inner" / "main.tf").write_text('output "x" {\n  value = "inner"\n}\n')
    assert DRIVER.ensure(resource, run).outputs == {"x": "inner"}
    assert DRIVER.ensure(resource, run).outputs == {"x": "inner"}
    assert run.text().count("Initializing modules") == 1


def test_no_tool_can_write_in_an_initialised_module(
    module: Any, run: MemoryRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("bwrap"):
        monkeypatch.setenv("CONDUCTOR_SANDBOX", "bubblewrap")
    resource = module(SIMPLE, size="small")
    (resource.content / "main.tf").chmod(0o666)
    assert DRIVER.ensure(resource, run).outputs == {"size": "small"}
    (folder,) = _initialised(run)
    paths = [folder, *folder.rglob("*")]
    assert {path.lstat().st_uid for path in paths} == {os.geteuid()}
    assert [path for path in paths if path.lstat().st_mode & 0o022] == []


def _initialised(run: MemoryRun) -> list[Path]:
    cache = run.work_folder.parent.parent / "terraform-init"
    return sorted(each for each in cache.iterdir() if each.is_dir())


def _in(environment: str, resource: Any) -> Any:
    return replace(resource, context={**resource.context, "environment": environment})


def test_what_credentials_could_fetch_is_for_their_environment_alone(
    module: Any, run: MemoryRun
) -> None:
    resource = module(SIMPLE, size="small")
    for environment in ("development", "staging"):
        DRIVER.ensure(_in(environment, resource), run)
    assert len(_initialised(run)) == 1
    run.environment = {**run.environment, "TF_TOKEN_registry_acme_test": "secret"}
    for environment in ("development", "staging", "staging"):
        DRIVER.ensure(_in(environment, resource), run)
    assert len(_initialised(run)) == 3


def _age(folder: Path) -> None:
    os.utime(folder, (time.time() - UNUSED_SECONDS - 60,) * 2)


def test_an_initialised_module_goes_when_nobody_has_used_it_for_long(
    module: Any, run: MemoryRun
) -> None:
    resource = module(SIMPLE, size="small")
    DRIVER.ensure(resource, run)
    (folder,) = _initialised(run)
    (folder.parent / "init-left").mkdir()
    _age(folder.parent / "init-left")
    remove_unused(run.work_folder.parent)
    assert _initialised(run) == [folder]
    _age(folder)
    DRIVER.ensure(resource, run)
    remove_unused(run.work_folder.parent)
    assert _initialised(run) == [folder]
    _age(folder)
    remove_unused(run.work_folder.parent)
    assert _initialised(run) == []
    assert DRIVER.ensure(resource, run).outputs == {"size": "small"}


@pytest.mark.parametrize("own_data", [False, True])
def test_an_initialised_module_in_use_stays(module: Any, run: MemoryRun, own_data: bool) -> None:
    DRIVER.ensure(module(SIMPLE, size="small"), run)
    (folder,) = _initialised(run)
    run.work_folder.mkdir()
    InitialisedModule(folder, frozenset()).copy_to(run.work_folder, own_data=own_data)
    _age(folder)
    remove_unused(run.work_folder.parent)
    assert _initialised(run) == [folder]


def test_racing_workers_initialise_a_module_once(module: Any, tmp_path: Path) -> None:
    resource = module(SIMPLE, size="small")
    runs = [MemoryRun(tmp_path / "work" / str(number)) for number in range(4)]
    threads = [threading.Thread(target=DRIVER.ensure, args=(resource, each)) for each in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(each.states for each in runs)
    assert (
        sum(each.text().count("Terraform has been successfully initialized") for each in runs) <= 1
    )
    assert len(_initialised(runs[0])) == 1


def test_a_failing_init_says_why_and_leaves_nothing(
    module: Any, run: MemoryRun, tmp_path: Path
) -> None:
    with pytest.raises(DriverError, match=r"init failed.*nowhere"):
        DRIVER.ensure(module('module "x" {\n  source = "./nowhere"\n}\n'), run)
    assert _initialised(run) == []


def _assert_not_used(resource: Any, run: MemoryRun, why: str) -> None:
    with pytest.raises(DriverError, match=f"^The module is not used: .*{why}") as refused:
        DRIVER.ensure(resource, run)
    assert refused.value.permanent is True
    assert _initialised(run) == []
    assert run.states == []


def test_an_override_file_of_the_module_does_not_move_the_state(
    module: Any, run: MemoryRun, tmp_path: Path
) -> None:
    resource = module(SIMPLE, size="small")
    elsewhere = f'terraform {{\n  backend "local" {{\n    path = "{tmp_path}/elsewhere"\n  }}\n}}\n'
    (resource.content / "x_override.tf").write_text(elsewhere)
    assert DRIVER.ensure(resource, run).outputs == {"size": "small"}
    assert not (tmp_path / "elsewhere").exists()
    assert len(run.states) >= 1


def test_an_override_file_that_comes_after_conductors_is_refused(
    module: Any, run: MemoryRun, tmp_path: Path
) -> None:
    resource = module(SIMPLE, size="small")
    elsewhere = f'terraform {{\n  backend "local" {{\n    path = "{tmp_path}/elsewhere"\n  }}\n}}\n'
    (resource.content / "zzzzz_override.tf").write_text(elsewhere)
    _assert_not_used(resource, run, "it sets a backend of its own")
    assert not (tmp_path / "elsewhere").exists()


def test_a_module_that_init_took_from_elsewhere_is_not_used(
    module: Any, run: MemoryRun, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "main.tf").write_text('output "x" {\n  value = 1\n}\n')
    resource = module(f'module "x" {{\n  source = "{tmp_path}/outside"\n}}\n')
    _assert_not_used(resource, run, "the module 'x' leads out of the template's folder")


def test_a_provider_that_init_took_from_elsewhere_is_not_used(
    module: Any, run: MemoryRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    place = tmp_path / "mirror/evil.example/acme/dock/1.0.0" / f"linux_{machine}"
    place.mkdir(parents=True)
    program = place / "terraform-provider-dock_v1.0.0"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("CONDUCTOR_TERRAFORM_MIRROR", str(tmp_path / "mirror"))
    asked = 'terraform {\n  required_providers {\n    d = { source = "evil.example/acme/dock" }\n  }\n}\n'
    _assert_not_used(
        module(asked), run, "'evil.example/acme/dock' comes from the host evil.example"
    )


def test_a_missing_binary_is_named(
    module: Any, run: MemoryRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONDUCTOR_TERRAFORM", "/nowhere/tofu")
    assert DRIVER.tool() == ("/nowhere/tofu", None)
    with pytest.raises(DriverError, match="/nowhere/tofu is not installed") as failed:
        DRIVER.ensure(module(SIMPLE, size="small"), run)
    assert failed.value.permanent is True


def test_a_cancel_stops_the_apply_and_keeps_what_was_made(
    module: Any, run: MemoryRun, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    resource = module(ITEMS, ledger=str(ledger), items=40, seconds=0.1)
    thread = _once_logged(run, ledger, 10, lambda: setattr(run, "told", "cancelled"))
    with pytest.raises(StoppedError) as stopped:
        DRIVER.ensure(resource, run)
    thread.join()
    assert stopped.value.reason == "cancelled"
    made = _ledger(ledger)
    assert 10 <= len(made) < 40
    assert set(made) <= set(_items(run.states[-1]))


def test_another_resources_state_is_not_taken_through_a_link(
    module: Any, run: MemoryRun, tmp_path: Path
) -> None:
    resource = module(SIMPLE, size="small")
    victim = tmp_path / "victim.tfstate"
    victim.write_text(json.dumps({"version": 4, "serial": 90, "lineage": "a", "resources": []}))
    run.work_folder.mkdir(parents=True)
    (run.work_folder / "terraform.tfstate").symlink_to(victim)
    assert DRIVER.ensure(resource, run).outputs == {"size": "small"}
    assert "terraform.tfstate in the tool's folder is no file of its own" in run.text()
    assert not [state for state in run.states if json.loads(state)["serial"] == 90]
    assert json.loads(victim.read_text())["serial"] == 90


def test_what_was_left_before_a_cancel_is_stored_and_nothing_is_begun(
    module: Any, run: MemoryRun
) -> None:
    resource = module(SIMPLE, size="small")
    DRIVER.ensure(resource, run)
    left = json.loads(run.states[-1]) | {"serial": 90}
    run.states.clear()
    run.work_folder.mkdir(parents=True, exist_ok=True)
    (run.work_folder / "terraform.tfstate").write_text(json.dumps(left))
    run.attempt, run.told = 2, "cancelled"
    logged = len(run.logged)
    with pytest.raises(StoppedError, match="was not begun again"):
        DRIVER.ensure(resource, run)
    assert [json.loads(state)["serial"] for state in run.states] == [90]
    assert [text for _, _, text in run.logged[logged:]] == [
        "A state of serial 90 left by an earlier attempt is used.\n"
    ]
    assert not run.work_folder.exists()


def test_the_deadline_stops_the_apply(module: Any, run: MemoryRun, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    resource = module(ITEMS, ledger=str(ledger), items=40, seconds=2)
    run.deadline = time.monotonic() + 3
    with pytest.raises(StoppedError) as stopped:
        DRIVER.ensure(resource, run)
    assert stopped.value.reason == "timed out"
    assert len(_ledger(ledger)) < 40
    assert set(_ledger(ledger)) <= set(_items(run.load_state()))


def test_a_worker_that_lost_its_lease_stops_the_tool_and_stores_nothing(
    module: Any, run: MemoryRun, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    resource = module(ITEMS, ledger=str(ledger), items=40, seconds=0.1)
    thread = _once_logged(run, ledger, 5, lambda: setattr(run, "fenced", True))
    with pytest.raises(LeaseLostError):
        DRIVER.ensure(resource, run)
    thread.join()
    shipped = len(run.states)
    left = Tool.left_in(run.work_folder)
    assert left is not None
    _wait_until(lambda: not left.runs())
    assert left.outcome() == Outcome(1, "lease lost")
    assert len(_ledger(ledger)) < 40
    assert len(run.states) == shipped


WORKER = """
import sys
from pathlib import Path
from provisioning.drivers import get_driver
from tests.provisioning.drivers.runs import FolderRun, driver_input
work, stored, content, ledger = map(Path, sys.argv[1:5])
params = {"ledger": str(ledger), "items": 30, "seconds": 0.1}
run = FolderRun(work, stored_in=stored)
get_driver("terraform").ensure(driver_input(content, params=params), run)
"""


def _is_over(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize(
    ("victims", "made_before"),
    [
        ("worker", 1),
        ("worker", 12),
        ("terraform", 8),
        ("supervisor", 8),
        ("worker supervisor", 6),
        ("worker supervisor terraform", 6),
    ],
)
def test_nothing_made_is_missing_from_state_after_a_kill(
    module: Any, tmp_path: Path, victims: str, made_before: int
) -> None:
    ledger, stored = tmp_path / "ledger", tmp_path / "stored"
    stored.mkdir()
    resource = module(ITEMS, ledger=str(ledger), items=30, seconds=0.1)
    work = tmp_path / "work" / "resource"
    worker = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WORKER), work, stored, resource.content, ledger],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    _wait_until(lambda: len(_ledger(ledger)) >= made_before)
    tool = psutil.Process(int((said_folder(work) / "tool").read_text()))
    processes = {"worker": worker, "supervisor": tool.parent(), "terraform": tool}
    for victim in victims.split():
        processes[victim].kill()
    worker.wait()
    if victims != "worker":
        _wait_until(lambda: _is_over(tool))
        assert len(_ledger(ledger)) < 30

    run = FolderRun(work, stored_in=stored, attempt=2)
    DRIVER.ensure(module(ITEMS, ledger=str(ledger), items=30, seconds=0.1), run)
    items = _items(run.load_state())
    assert set(items) == set(range(30))
    assert set(items.values()) == {"complete"}
    made = _ledger(ledger)
    if "terraform" not in victims:  # killed in the middle of a provisioner, it takes that for done
        assert set(made) == set(range(30))
    if victims == "worker":  # the tool went on, and was followed to its end
        assert len(made) == 30
        assert "Following what the attempt before this one began" in run.text()
    # Terraform, when killed or interrupted, makes again at most the ten things it was about to make.
    assert len(made) <= 40


def test_a_state_left_behind_is_not_used_once_another_worker_has_stored_one(
    module: Any, run: MemoryRun, tmp_path: Path
) -> None:
    DRIVER.ensure(module(SIMPLE, size="one"), run)
    left = json.loads(run.states[-1]) | {"serial": 90}
    run.work_folder.mkdir()
    (run.work_folder / "terraform.tfstate").write_text(json.dumps(left))
    result = DRIVER.ensure(module(SIMPLE, size="two"), run)
    assert result.outputs == {"size": "two"}
    assert json.loads(run.states[-1])["serial"] < 90
    assert "another worker has stored one since" in run.text()


def test_a_stored_state_that_is_broken_is_not_overwritten(module: Any, run: MemoryRun) -> None:
    run.states.append(b'{"half":')
    with pytest.raises(DriverError, match="stored state is not a complete Terraform state"):
        DRIVER.ensure(module(SIMPLE, size="one"), run)
    assert run.states == [b'{"half":']


def test_the_tool_sees_no_secret_of_conductor(module: Any, run: MemoryRun) -> None:
    text = (
        SIMPLE
        + 'resource "terraform_data" "spy" {\n  provisioner "local-exec" {\n    command = "env"\n  }\n}\n'
    )
    run.environment = {**run.environment, "CONDUCTOR_POSTGRES_ADMIN_URL": "postgresql://secret"}
    DRIVER.ensure(module(text, size="small"), run)
    assert "TF_IN_AUTOMATION=1" in run.text()
    assert "postgresql://secret" not in run.text()
    assert os.environ.get("DJANGO_SETTINGS_MODULE", "conductor.settings") not in run.text()


def _interrupted(module: Any, run: MemoryRun, ledger: Path, **config: str) -> Any:
    """Return the input of a resource whose first apply was cut short in the middle."""
    resource = replace(module(ITEMS, ledger=str(ledger), items=6, seconds=0), config=config)
    DRIVER.ensure(replace(resource, params={**resource.params, "items": 2}), run)
    run.recovering, run.attempt = True, 2
    return resource


def test_what_an_interrupted_apply_did_not_do_is_done_after_a_look(
    module: Any, run: MemoryRun, tmp_path: Path
) -> None:
    resource = _interrupted(module, run, tmp_path / "ledger")
    DRIVER.ensure(resource, run)
    assert sorted(_ledger(tmp_path / "ledger")) == [0, 1, 2, 3, 4, 5]
    assert "An earlier attempt was lost: comparing its state with what is there." in run.text()


def test_a_template_may_want_a_person_to_look_at_what_is_left_to_do(
    module: Any, run: MemoryRun, tmp_path: Path
) -> None:
    resource = _interrupted(module, run, tmp_path / "ledger", recovery="stop")
    with pytest.raises(DriverError) as failed:
        DRIVER.ensure(resource, run)
    assert failed.value.permanent is True
    assert str(failed.value).startswith(
        "An attempt was lost in the middle, and 4 changes are still to be made "
        "(create terraform_data.item[2], create terraform_data.item[3]"
    )
    assert len(_ledger(tmp_path / "ledger")) == 2
    run.recovering, run.attempt, run.step = False, 1, 2
    DRIVER.ensure(resource, run)
    assert len(_ledger(tmp_path / "ledger")) == 6


def test_an_interrupted_apply_that_had_done_everything_succeeds_without_another(
    module: Any, run: MemoryRun, tmp_path: Path
) -> None:
    resource = _interrupted(module, run, tmp_path / "ledger", recovery="stop")
    resource = replace(resource, params={**resource.params, "items": 2})
    DRIVER.ensure(resource, run)
    assert len(_ledger(tmp_path / "ledger")) == 2
    assert "Apply complete" in run.text()
    assert run.text().count("Apply complete") == 1


FILLING = """
resource "terraform_data" "one" { input = "x" }
resource "terraform_data" "fill" {
  input = terraform_data.one.id
  provisioner "local-exec" { command = "dd if=/dev/zero of=ballast bs=4k; true" }
}
resource "terraform_data" "big" {
  input = join(terraform_data.fill.id, [for number in range(1000) : "and so on, and so on"])
}
output "secret" {
  value     = "s3cret-${terraform_data.one.id}"
  sensitive = true
}
"""


@pytest.mark.mounts
def test_a_full_disk_loses_no_state(module: Any, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", small], check=True)
    try:
        run = MemoryRun(small / "work" / "resource")
        with pytest.raises(DriverError, match="no space left on device"):
            DRIVER.ensure(module(FILLING), run)
    finally:
        subprocess.run(["umount", small], check=True)
    names = [each["name"] for each in json.loads(run.states[-1])["resources"]]
    assert sorted(names) == ["big", "fill", "one"]
    assert "Terraform could not write its state; it was rescued." in run.text()
    assert "s3cret-" not in "".join(text for _, _, text in run.unmasked)


def test_a_state_of_another_lineage_that_the_module_put_there_is_an_error(
    module: Any, run: MemoryRun
) -> None:
    other = json.dumps({"version": 4, "serial": 99, "lineage": "other", "resources": []})
    text = (
        SIMPLE
        + 'resource "terraform_data" "swap" {\n  depends_on = [terraform_data.it]\n'
        + '  provisioner "local-exec" {\n'
        + "    command = \"rm terraform.tfstate; echo '$OTHER' > terraform.tfstate\"\n  }\n}\n"
    ).replace("$OTHER", other.replace('"', '\\"'))
    DRIVER.ensure(module(SIMPLE, size="small"), run)
    with pytest.raises(DriverError, match=r"left a state of lineage other \(serial 99\)") as failed:
        DRIVER.ensure(module(text, size="small"), run)
    assert failed.value.permanent is True
    assert not any(b"other" in state for state in run.states)


def test_an_unknown_way_to_recover_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match=r"config\.recovery must be `retry` or `stop`"):
        DRIVER.describe(tmp_path, {"recovery": "guess"})


def _other_version(folder: Path, version: str) -> Path:
    """Return the real tool under the name of another version."""
    real = shutil.which("terraform")
    tool = folder / f"terraform-{version}"
    tool.write_text(
        f'#!/bin/sh\n[ "$1" = version ] && exec echo \'{{"terraform_version": "{version}"}}\'\n'
        f'echo "this is {version}" >&2\nexec {real} "$@"\n'
    )
    tool.chmod(0o755)
    return tool


def test_a_template_gets_the_newest_version_that_fits(
    module: Any, run: MemoryRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, oldest = _other_version(tmp_path, "1.9.8"), _other_version(tmp_path, "1.9.1")
    monkeypatch.setenv("CONDUCTOR_TERRAFORM", f"terraform,{oldest},{older}")
    resource = replace(module(SIMPLE, size="small"), config={"version": "~> 1.9.0"})
    DRIVER.ensure(resource, run)
    assert "this is 1.9.8" in run.text()
    tool = DRIVER.tool()
    assert tool is not None
    assert tool[1] is not None
    assert tool[1].endswith(", 1.9.1, 1.9.8")


def test_a_version_that_no_tool_of_the_worker_has_is_told(module: Any, run: MemoryRun) -> None:
    resource = replace(module(SIMPLE, size="small"), config={"version": ">= 0.1, < 0.2"})
    with pytest.raises(
        DriverError, match=r"wants version >= 0\.1, < 0\.2, and this worker has terr"
    ):
        DRIVER.ensure(resource, run)
    assert run.states == []


def test_a_version_that_is_no_constraint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match=r"config\.version 'newest' is no constraint"):
        DRIVER.describe(tmp_path, {"version": "newest"})


def test_with_a_mirror_a_provider_that_it_lacks_is_refused(
    module: Any, run: MemoryRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    monkeypatch.setenv("CONDUCTOR_TERRAFORM_MIRROR", str(mirror))
    text = 'terraform {\n  required_providers {\n    x = { source = "acme/x" }\n  }\n}\n' + SIMPLE
    with pytest.raises(DriverError, match=r"acme/x"):
        DRIVER.ensure(module(text, size="small"), run)
    assert str(mirror) in run.text()


def test_an_interrupted_apply_that_had_made_nothing_is_recovered(
    module: Any, run: MemoryRun, tmp_path: Path
) -> None:
    text = ITEMS + 'output "first" {\n  value = terraform_data.item[0].id\n}\n'
    run.states.append(
        b'{"version": 4, "serial": 1, "lineage": "a", "outputs": {}, "resources": []}'
    )
    run.recovering, run.attempt = True, 2
    result = DRIVER.ensure(module(text, ledger=str(tmp_path / "ledger"), items=1, seconds=0), run)
    assert set(result.outputs) == {"first"}
    assert _ledger(tmp_path / "ledger") == [0]
    assert "The state is of a module half made" in run.text()


def test_a_plan_that_another_attempt_left_is_not_taken_for_the_apply(
    module: Any, run: MemoryRun
) -> None:
    run.work_folder.mkdir(parents=True)
    left = Tool.start(
        ["/bin/sleep", "60"],
        run=run,
        folder=run.work_folder,
        environment=run.environment,
        followable=False,
    )
    run.attempt = 2
    result = DRIVER.ensure(module(SIMPLE, size="small"), run)
    assert result.outputs == {"size": "small"}
    assert left.wait(5)
