"""Initialise each module once for all resources of this host, and forget it when it is not used."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from provisioning.drivers import sandbox
from provisioning.drivers.base import DriverError, DriverInput, Run, StoppedError
from provisioning.drivers.output import printable
from provisioning.drivers.supervision import supervise
from provisioning.drivers.terraform.backends import OVERRIDE_FILE, is_managed, override_managed
from provisioning.drivers.terraform.installation import (
    Installation,
    seen_by_tool,
    tool_environment,
)
from provisioning.drivers.terraform.module import declared_variables
from provisioning.drivers.terraform.shipping import STATE_FILE
from provisioning.drivers.terraform.sources import refused_installed, trusted_hosts
from provisioning.drivers.work_folder import wait_for_lock

DATA_FOLDER = ".terraform"
VARIABLES_FILE = ".conductor-variables.json"
INIT_PATIENCE = 1800.0  # seconds to wait for another worker that initialises the same module
UNUSED_SECONDS = 30 * 24 * 3600.0

_MAKING, _UNUSED = "init-", "unused-"
_SIGNING_IN = ("TF_TOKEN_", "GIT_", "SSH_")
"""What the variables begin with by which `init` signs in to private registries and repositories."""

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


def cache_folder(work_folders: Path) -> Path:
    """Return where the initialised modules are, beside the folder of the resources' work folders."""
    return work_folders.parent / "terraform-init"


def initialised_module(
    resource: DriverInput, run: Run, tool: Installation, cache: Path
) -> InitialisedModule:
    """Return the module after `init`, which runs once for all resources that may share its result."""
    target = cache / _key(resource, tool, tool_environment(run, cache))
    with _lock_file(target) as lock:
        wait_for_lock(lock.fileno(), run, INIT_PATIENCE, what=lock.name)
        if not target.is_dir():
            _initialise(resource, run, tool, target)
        os.utime(target)
    return InitialisedModule(target, frozenset(json.loads((target / VARIABLES_FILE).read_text())))


def _key(resource: DriverInput, tool: Installation, environment: Mapping[str, str]) -> str:
    """Name all that the result of `init` depends on.

    What an environment's credentials could fetch is for this environment alone.
    """
    signing_in = sorted(name for name in environment if name.startswith(_SIGNING_IN))
    context = resource.context
    whose = [context["organisation"], context["environment"], *signing_in] if signing_in else []
    configuration = Path(environment["TF_CLI_CONFIG_FILE"]).stem
    rest = json.dumps([configuration, trusted_hosts(), whose])
    digest = hashlib.sha256(rest.encode()).hexdigest()[:16]
    key = f"{resource.content_digest.rpartition(':')[2]}-{tool.name}-{tool.version}-{digest}"
    return re.sub(r"[^\w.-]", "_", key)


def _lock_file(target: Path) -> TextIO:
    return target.with_name(f"{target.name}.lock").open("w")


def remove_unused(work_folders: Path) -> None:
    """Remove the initialised modules of this host that nothing has used for UNUSED_SECONDS.

    One that a work folder is linked to is used. What dead workers left half-made goes as well.
    """
    cache = cache_folder(work_folders)
    used = _linked(work_folders)
    for folder in sorted(cache.iterdir()) if cache.is_dir() else ():
        if folder.name.startswith(_UNUSED) or (folder.name.startswith(_MAKING) and _is_old(folder)):
            shutil.rmtree(folder, ignore_errors=True)
        elif folder.is_dir() and folder.resolve() not in used and _is_old(folder):
            with _lock_file(folder) as lock, suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_old(folder):  # still: another worker may have taken it, or removed it
                    # Whole or gone: a worker that dies meanwhile leaves no half of it under its name.
                    gone = folder.rename(folder.with_name(f"{_UNUSED}{folder.name}"))
                    shutil.rmtree(gone, ignore_errors=True)


def _is_old(folder: Path) -> bool:
    with suppress(FileNotFoundError):
        return folder.stat().st_mtime < time.time() - UNUSED_SECONDS
    return False


def _linked(work_folders: Path) -> set[Path]:
    """Return every folder above what the work folders' links lead to."""
    links = (*work_folders.glob(f"*/{DATA_FOLDER}"), *work_folders.glob(f"*/{DATA_FOLDER}/*"))
    return {parent for link in links if link.is_symlink() for parent in link.resolve().parents}


def _initialise(resource: DriverInput, run: Run, tool: Installation, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=_MAKING) as name:
        Path(name).chmod(0o711)
        folder = Path(name) / "module"
        shutil.copytree(resource.content, folder, symlinks=True, ignore=_NOT_COPIED)
        folder.chmod(0o755)  # the content is read-only, and init makes a folder in it
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
