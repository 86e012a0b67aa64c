"""The driver that runs a Terraform or OpenTofu module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from provisioning.drivers.base import (
    DriverError,
    DriverInput,
    DriverResult,
    Run,
    StateLocation,
    TemplateInterface,
)
from provisioning.drivers.terraform.application import RETRY, STOP, Application
from provisioning.drivers.terraform.backends import locate
from provisioning.drivers.terraform.imports import check_imports
from provisioning.drivers.terraform.installation import (
    find_installations,
    tool_names,
    version_constraint,
)
from provisioning.drivers.terraform.module import describe_module
from provisioning.drivers.work_folder import occupied


class TerraformDriver:
    """Make a resource with a Terraform module."""

    name = "terraform"
    label = "Terraform / OpenTofu"

    def tool(self) -> tuple[str, str | None]:
        """Return the tool's name and its installed versions (None: not installed)."""
        found = find_installations()
        versions = ", ".join(each.version for each in found)
        return (found[0].name, versions) if found else (tool_names()[0], None)

    def describe(self, content: Path, config: Mapping[str, Any]) -> TemplateInterface:
        """Read the module's variables and outputs."""
        if config.get("recovery", RETRY) not in (RETRY, STOP):
            raise DriverError("config.recovery must be `retry` or `stop`.", permanent=True)
        if config.get("version"):
            version_constraint(str(config["version"]))
        return describe_module(content)

    def check_imports(self, content: Path, imports: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Return ids by address; raise DriverError for what the module does not declare."""
        return check_imports(content, imports)

    def locate_state(self, backend: Mapping[str, Any], resource_id: str) -> StateLocation:
        """Return where the state of a new resource is kept, by the environment's settings."""
        return locate(backend, resource_id)

    def ensure(self, resource: DriverInput, run: Run) -> DriverResult:
        """Apply the module and return the outputs that its state holds."""
        with occupied(run, keep_tool=True):
            application = Application(resource, run)
            state = application.apply()
        return DriverResult(
            outputs=state.values(),
            sensitive=state.sensitive(),
            state_location=application.keeper.location(),
        )

    def destroy(self, resource: DriverInput, run: Run) -> None:
        """Destroy everything that the resource's state holds."""
        with occupied(run, keep_tool=True):
            Application(resource, run).destroy()
