"""Find the Terraform or OpenTofu binary, and initialise each module once per content and version."""

from __future__ import annotations

import hashlib
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

from semantic_version import SimpleSpec, Version

from provisioning.drivers.base import DriverError, DriverInput, Run, StoppedError
from provisioning.drivers.supervision import printable, supervise
from provisioning.drivers.terraform.module import declared_variables
from provisioning.drivers.work_folder import wait_for_lock

LOCK_FILE = ".terraform.lock.hcl"
DATA_FOLDER = ".terraform"
VARIABLES_FILE = ".conductor-variables.json"
_CREDENTIALS = ("TF_TOKEN_", "TF_HTTP_")
"""What Terraform's own variables for credentials begin with."""
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


def tool_names() -> list[str]:
    """Return the wanted tools: `terraform`, or those that CONDUCTOR_TERRAFORM lists with commas.

    Each is `terraform`, `tofu` or a path; several serve templates that want different versions.
    """
    return (os.environ.get("CONDUCTOR_TERRAFORM") or "terraform").replace(",", " ").split()


def find_installations() -> list[Installation]:
    """Return the installed tools, in the order in which they are wanted."""
    found = []
    for name in tool_names():
        binary = shutil.which(name)
        version = _version(binary, Path(binary).stat().st_mtime_ns) if binary else None
        if binary is not None and version is not None:
            found.append(Installation(Path(binary).name, binary, version))
    return found


def installation(wanted: str = "") -> Installation:
    """Return the first installed tool, or the newest whose version fits what is wanted.

    `wanted` is a constraint such as `~> 1.9` or `>= 1.5, < 2`. Raises DriverError if none fits.
    """
    found = find_installations()
    if not found:
        raise DriverError(
            f"{', '.join(tool_names())} is not installed on this worker: install it, or name another "
            "binary with CONDUCTOR_TERRAFORM.",
            permanent=True,
        )
    if not wanted:
        return found[0]
    constraint = version_constraint(wanted)
    fitting = [each for each in found if Version(each.version) in constraint]
    if not fitting:
        raise DriverError(
            f"The template wants version {wanted}, and this worker has "
            f"{', '.join(f'{each.name} {each.version}' for each in found)}: name the binary of a "
            "fitting version with CONDUCTOR_TERRAFORM.",
            permanent=True,
        )
    return max(fitting, key=lambda each: Version(each.version))


def version_constraint(text: str) -> SimpleSpec:
    """Return what a constraint in Terraform's grammar means; raise DriverError if it means nothing."""
    try:
        return SimpleSpec(text.replace("~>", "~=").replace(" ", ""))
    except ValueError as error:
        message = f"config.version {text!r} is no constraint such as `~> 1.9` or `>= 1.5, < 2`."
        raise DriverError(message, permanent=True) from error


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
    CONDUCTOR_TERRAFORM_CONFIG, or a folder of providers with CONDUCTOR_TERRAFORM_MIRROR: then they come from
    there and from nowhere else.
    """
    environment = {
        name: value
        for name, value in run.environment.items()
        if not name.startswith(("TF_", "CONDUCTOR_")) or name.startswith(_CREDENTIALS)
    }
    environment.setdefault("PATH", os.environ.get("PATH", os.defpath))
    environment.setdefault("HOME", str(run.work_folder))
    own = _own_config(cache_folder)
    return environment | {
        "CHECKPOINT_DISABLE": "1",
        "TF_CLI_CONFIG_FILE": os.environ.get("CONDUCTOR_TERRAFORM_CONFIG") or str(own),
        "TF_IN_AUTOMATION": "1",
        "TF_INPUT": "0",
    }


def seen_by_tool(tool: Installation, environment: Mapping[str, str]) -> list[Path]:
    """Return what the tool has to read besides its module: its binary, configuration and providers."""
    seen = [Path(tool.binary).resolve(), Path(tool.binary), Path(environment["TF_CLI_CONFIG_FILE"])]
    mirror = os.environ.get("CONDUCTOR_TERRAFORM_MIRROR")
    return [path for path in [*seen, *([Path(mirror)] if mirror else [])] if path.exists()]


def _own_config(folder: Path) -> Path:
    """Write the CLI configuration, which a mirror makes another one, unless it is there."""
    mirror = os.environ.get("CONDUCTOR_TERRAFORM_MIRROR")
    text = "disable_checkpoint = true\n"
    if mirror:
        where = json.dumps(mirror)
        text += f"provider_installation {{\n  filesystem_mirror {{\n    path = {where}\n  }}\n}}\n"
    path = folder / f"terraform-{hashlib.sha256(text.encode()).hexdigest()[:8]}.rc"
    if not path.exists():
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
        Path(file.name).replace(path)
    return path


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
