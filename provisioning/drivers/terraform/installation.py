"""Find the Terraform or OpenTofu binary, and initialise each module once per content and version."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from provisioning.drivers.base import DriverError, DriverInput, Run, StoppedError
from provisioning.drivers.supervision import printable, supervise
from provisioning.drivers.terraform.module import declared_variables
from provisioning.drivers.work_folder import wait_for_lock

LOCK_FILE = ".terraform.lock.hcl"
DATA_FOLDER = ".terraform"
VARIABLES_FILE = ".conductor-variables.json"
INIT_PATIENCE = 1800.0  # seconds to wait for another worker that initialises the same module

# What a module's folder may hold from somebody's own runs; it must not reach ours.
_NOT_COPIED = shutil.ignore_patterns(
    DATA_FOLDER, "*.tfstate", "*.tfstate.*", ".terraform.tfstate.lock.info", "crash.log", ".git",
    "*.tfvars", "*.tfvars.json",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Installation:
    """Name the tool, its binary and its version."""

    name: str
    binary: str
    version: str


@dataclass(frozen=True, slots=True)
class InitialisedModule:
    """Hold a module that `init` has prepared; the folder is shared and never written again."""

    folder: Path
    variables: frozenset[str]

    @property
    def has_providers(self) -> bool:
        """Say whether the module needs provider programs besides the tool itself."""
        return (self.folder / DATA_FOLDER / "providers").is_dir()

    def copy_to(self, folder: Path) -> None:
        """Lay the module into a work folder; the downloaded providers and modules are only linked."""
        ignore = shutil.ignore_patterns(DATA_FOLDER, VARIABLES_FILE)
        shutil.copytree(self.folder, folder, symlinks=True, ignore=ignore, dirs_exist_ok=True)
        link, data = folder / DATA_FOLDER, self.folder / DATA_FOLDER
        link.unlink(missing_ok=True)
        if data.is_dir():
            link.symlink_to(data)


def tool_name() -> str:
    """Return the wanted tool: `terraform`, or what CONDUCTOR_TERRAFORM says (`tofu` or a path)."""
    return os.environ.get("CONDUCTOR_TERRAFORM") or "terraform"


def find_installation() -> Installation | None:
    """Return the installed tool, or None."""
    binary = shutil.which(tool_name())
    version = _version(binary, Path(binary).stat().st_mtime_ns) if binary else None
    if binary is None or version is None:
        return None
    return Installation(Path(binary).name, binary, version)


def installation() -> Installation:
    """Return the installed tool; raise DriverError naming it if there is none."""
    found = find_installation()
    if found is None:
        raise DriverError(
            f"{tool_name()} is not installed on this worker: install it, or name another binary "
            "with CONDUCTOR_TERRAFORM.",
            permanent=True,
        )
    return found


@cache
def _version(binary: str, modified: int) -> str | None:
    """Ask a binary for its version; `modified` makes the answer that of this very file."""
    try:
        answer = subprocess.run(
            [binary, "version", "-json"],
            capture_output=True,
            timeout=30,
            check=True,
            env={"CHECKPOINT_DISABLE": "1", "PATH": os.environ.get("PATH", os.defpath)},
        )
        return str(json.loads(answer.stdout)["terraform_version"])
    except (OSError, ValueError, KeyError, subprocess.SubprocessError):
        return None


def tool_environment(run: Run, cache_folder: Path) -> dict[str, str]:
    """Return the tool's environment: the run's, without what would change the tool's behaviour.

    The operator may name a CLI configuration of their own (mirrors, credentials) with
    CONDUCTOR_TERRAFORM_CONFIG.
    """
    environment = {
        name: value
        for name, value in run.environment.items()
        if not name.startswith(("TF_", "CONDUCTOR_")) or name.startswith("TF_TOKEN_")
    }
    environment.setdefault("PATH", os.environ.get("PATH", os.defpath))
    environment.setdefault("HOME", str(run.work_folder))
    own = cache_folder / "terraform.rc"
    if not own.exists():
        _write_config(own)
    return environment | {
        "CHECKPOINT_DISABLE": "1",
        "TF_CLI_CONFIG_FILE": os.environ.get("CONDUCTOR_TERRAFORM_CONFIG") or str(own),
        "TF_IN_AUTOMATION": "1",
        "TF_INPUT": "0",
    }


def seen_by_tool(tool: Installation, environment: Mapping[str, str]) -> list[Path]:
    """Return what the tool has to read besides its module: its binary and its configuration."""
    configuration = Path(environment["TF_CLI_CONFIG_FILE"])
    return [
        Path(tool.binary).resolve(),
        Path(tool.binary),
        *([configuration] if configuration.exists() else []),
    ]


def _write_config(path: Path) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write("disable_checkpoint = true\n")
        os.fchmod(file.fileno(), 0o644)
    Path(file.name).replace(path)


def initialised_module(
    resource: DriverInput, run: Run, tool: Installation, cache_folder: Path
) -> InitialisedModule:
    """Return the module after `init`, which runs once per content digest, tool and version."""
    key = "-".join((resource.content_digest.rpartition(":")[2], tool.name, tool.version))
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
        logs = Path(name) / "logs"
        logs.mkdir()
        _run_init(run, tool, folder, logs, tool_environment(run, target.parent))
        _let_all_read(folder)
        folder.rename(target)


def _let_all_read(folder: Path) -> None:
    """Let the users as whom the tools of other resources run read an initialised module."""
    for parent, _, files in os.walk(folder):
        os.chmod(parent, 0o755)  # noqa: S103 -- it holds no secret: those are values, not code
        for name in files:
            path = Path(parent, name)
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | 0o444 | (0o111 if os.access(path, os.X_OK) else 0))


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
