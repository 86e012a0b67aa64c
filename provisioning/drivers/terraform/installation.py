"""Find the Terraform or OpenTofu binary, and what it has to know and to see."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from semantic_version import SimpleSpec, Version

from provisioning.drivers.base import DriverError, Run

_CREDENTIALS = ("TF_TOKEN_", "TF_HTTP_")
"""What Terraform's own variables for credentials begin with."""


@dataclass(frozen=True, slots=True)
class Installation:
    """Name the tool, its binary and its version."""

    name: str
    binary: str
    version: str


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
