"""Initialise each module once per content and version, for all resources of this host."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from provisioning.drivers import sandbox
from provisioning.drivers.base import DriverError, DriverInput, Run, StoppedError
from provisioning.drivers.supervision import printable, supervise
from provisioning.drivers.terraform.backends import OVERRIDE_FILE, is_managed, override_managed
from provisioning.drivers.terraform.installation import (
    Installation,
    seen_by_tool,
    tool_environment,
)
from provisioning.drivers.terraform.module import declared_variables
from provisioning.drivers.terraform.shipping import STATE_FILE
from provisioning.drivers.terraform.sources import refused_installed
from provisioning.drivers.work_folder import wait_for_lock

DATA_FOLDER = ".terraform"
VARIABLES_FILE = ".conductor-variables.json"
INIT_PATIENCE = 1800.0  # seconds to wait for another worker that initialises the same module

# What a module's folder may hold from somebody's own runs; it must not reach ours.
_NOT_COPIED = shutil.ignore_patterns(
    DATA_FOLDER, "*.tfstate", "*.tfstate.*", ".terraform.tfstate.lock.info", "crash.log", ".git",
    "*.tfvars", "*.tfvars.json",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class InitialisedModule:
    """Hold a module that `init` has prepared; the folder is shared and never written again."""

    folder: Path
    variables: frozenset[str]

    @property
    def has_providers(self) -> bool:
        """Say whether the module needs provider programs besides the tool itself."""
        return (self.folder / DATA_FOLDER / "providers").is_dir()

    def copy_to(self, folder: Path, *, own_data: bool = False) -> None:
        """Lay the module into an empty work folder; downloaded providers and modules are only linked.

        With `own_data`, the folder can be initialised once more, for a backend of its own.
        """
        ignore = shutil.ignore_patterns(DATA_FOLDER, VARIABLES_FILE)
        shutil.copytree(self.folder, folder, symlinks=True, ignore=ignore, dirs_exist_ok=True)
        folder.chmod(0o700)  # the copy took on the module's mode, and values and states come here
        link, data = folder / DATA_FOLDER, self.folder / DATA_FOLDER
        if own_data:
            link.mkdir()
            for part in data.iterdir() if data.is_dir() else ():
                (link / part.name).symlink_to(part)
        elif data.is_dir():
            link.symlink_to(data)


def initialised_module(
    resource: DriverInput, run: Run, tool: Installation, cache_folder: Path
) -> InitialisedModule:
    """Return the module after `init`, which runs once per content digest, tool and version."""
    configuration = Path(tool_environment(run, cache_folder)["TF_CLI_CONFIG_FILE"]).stem
    key = "-".join(
        (resource.content_digest.rpartition(":")[2], tool.name, tool.version, configuration)
    )
    target = cache_folder / re.sub(r"[^\w.-]", "_", key)
    if not target.is_dir():
        with target.with_name(f"{target.name}.lock").open("w") as lock:
            wait_for_lock(lock.fileno(), run, INIT_PATIENCE, what=lock.name)
            if not target.is_dir():
                _initialise(resource, run, tool, target)
    return InitialisedModule(target, frozenset(json.loads((target / VARIABLES_FILE).read_text())))


def _initialise(resource: DriverInput, run: Run, tool: Installation, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="init-") as name:
        Path(name).chmod(0o711)
        folder = Path(name) / "module"
        shutil.copytree(resource.content, folder, symlinks=True, ignore=_NOT_COPIED)
        variables = sorted(declared_variables(folder))
        (folder / VARIABLES_FILE).write_text(json.dumps(variables))
        (folder / OVERRIDE_FILE).write_bytes(override_managed())
        logs = Path(name) / "logs"
        logs.mkdir()
        _run_init(run, tool, folder, logs, tool_environment(run, target.parent))
        sandbox.take_back(folder)
        _refuse_installed(folder)
        folder.rename(target)


def _refuse_installed(folder: Path) -> None:
    """Hold what `init` made of a module to the rules; what the module says can be read in many ways."""
    data = folder / DATA_FOLDER
    noted = data / STATE_FILE
    why = refused_installed(folder, data)
    if not why and noted.is_file() and not is_managed(noted.read_bytes()):
        why = "it sets a backend of its own. Conductor keeps the state itself: remove the block."
    if why:
        raise DriverError(f"The module is not used: {why}", permanent=True)


def _run_init(
    run: Run, tool: Installation, folder: Path, logs: Path, environment: Mapping[str, str]
) -> None:
    errors: list[str] = []

    def heard(stream: str, line: str) -> None:
        text = printable(line)
        run.log(text + "\n", stream=stream)
        if stream == "stderr" and text.strip(" │╷╵"):
            errors.append(text.strip(" │╷╵"))

    arguments = [tool.binary, f"-chdir={folder}", "init", "-input=false", "-no-color"]
    outcome = supervise(
        arguments,
        run=run,
        folder=logs,
        environment=environment,
        on_line=heard,
        readable=seen_by_tool(tool, environment),
        writable=[folder],
    )
    if outcome.stopped and outcome.exit_code:
        raise StoppedError(f"The run was {outcome.stopped} during `init`.", outcome.stopped)
    if outcome.exit_code:
        raise DriverError(
            f"{tool.name} init failed (exit status {outcome.exit_code}): {' '.join(errors[:20])}",
            permanent=False,
        )
