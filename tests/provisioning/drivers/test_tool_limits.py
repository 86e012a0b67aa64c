"""What a tool may use of its host's memory and processes, by real tools in a real sandbox."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from django.conf import LazySettings

from provisioning.drivers import sandbox
from provisioning.drivers.base import DriverError
from provisioning.drivers.supervision import supervise
from provisioning.drivers.tool import MARK
from tests.provisioning.drivers.runs import MemoryRun
from tests.provisioning.place import Place

MODULE = """
variable "hungry" { type = bool }
locals {
  many = range(var.hungry ? 1000 : 1)
  line = join("", [for n in local.many : "and so on, and so on"])
  page = join("", [for n in local.many : local.line])
  book = join("", [for n in local.many : local.page])
}
resource "terraform_data" "it" { input = length(local.book) }
output "length" { value = terraform_data.it.output }
"""
BOMB = """
import os, sys, time
refused = 0
for _ in range(5000):
    try:
        if os.fork() == 0:
            time.sleep(600)
    except OSError as error:
        refused = error
        break
sys.exit(f"no more processes: {refused}")
"""
HUNGRY = "#!/usr/bin/env python3\nx = bytearray(600 * 1024 ** 2)"
RESOURCES = """\
  much: {type: module, params: {hungry: true}}
  little: {type: module, class: other, params: {hungry: false}}
"""


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let tools be shut off as where nothing else is set, and have little."""
    monkeypatch.setenv("CONDUCTOR_SANDBOX", "auto")
    monkeypatch.setenv("CONDUCTOR_TOOL_MEMORY", "256")
    monkeypatch.setenv("CONDUCTOR_TOOL_PROCESSES", "60")
    sandbox._find.cache_clear()
    yield
    sandbox._find.cache_clear()


def _left(folder: Path) -> list[psutil.Process]:
    left = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(folder):
                left.append(process)
        except psutil.Error:
            continue
    return left


@pytest.mark.terraform
def test_a_terraform_that_wants_too_much_memory_fails_and_others_go_on(
    place: Place, limits: None, settings: LazySettings
) -> None:
    settings.CONDUCTOR_LEASE_SECONDS = 600  # nobody renews it where nothing is committed
    place.template(
        "module", driver="terraform", outputs={"length": False}, content={"main.tf": MODULE}
    )
    deployment = place.deploy(RESOURCES)
    much, little = deployment.steps.order_by("position").select_related("resource")
    if much.resource.params["hungry"] is False:
        much, little = little, much
    told = (much.error, little.error)
    assert (much.status, much.attempt, little.status) == ("failed", 1, "succeeded"), told
    assert (
        "It ran out of memory or processes, of which tools may use 256 MiB of memory in each process "
        "(CONDUCTOR_TOOL_MEMORY)" in much.error
    )
    assert much.error.endswith("let it do less at once, or raise the limit on the worker.")


def test_a_script_that_wants_too_much_memory_is_told_of_the_limit(
    place: Place, limits: None
) -> None:
    place.template(
        "tool", driver="script", config={"command": "make.py"}, content={"make.py": HUNGRY}
    )
    deployment = place.deploy("  it: {type: tool}\n")
    error = deployment.steps.get().error
    assert "MemoryError" in error
    assert "256 MiB of memory in each process (CONDUCTOR_TOOL_MEMORY)" in error


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a tool a user of its own")
def test_a_fork_bomb_ends_and_leaves_nothing(limits: None, tmp_path: Path) -> None:
    run = MemoryRun(tmp_path / "work" / "resource")
    run.work_folder.mkdir(parents=True)
    if not sandbox.find_sandbox(run.work_folder).own_user:
        pytest.skip("no sandbox with a user of its own works here")
    outcome = supervise(
        [sandbox.python(), "-I", "-S", "-c", BOMB],
        run=run,
        folder=run.work_folder,
        environment={"PATH": os.environ["PATH"]},
    )
    assert outcome.exit_code == 1
    assert "no more processes: [Errno 11] Resource temporarily unavailable" in run.text()
    assert sandbox.is_starved(run.text())
    assert "60 processes (CONDUCTOR_TOOL_PROCESSES)" in sandbox.starved_hint(run.work_folder)
    assert _left(run.work_folder) == []


@pytest.mark.parametrize("text", ["4 GiB", "-1", "²"])
def test_a_limit_that_is_no_number_is_refused(
    limits: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("CONDUCTOR_TOOL_MEMORY", text)
    with pytest.raises(DriverError, match="CONDUCTOR_TOOL_MEMORY must be a whole number"):
        sandbox.find_sandbox(tmp_path / "work" / "resource")


def test_where_nothing_is_limited_the_host_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONDUCTOR_SANDBOX", "none")
    assert sandbox.starved_hint(tmp_path / "work" / "resource") == (
        "It ran out of memory or processes: its host has no more to give."
    )
