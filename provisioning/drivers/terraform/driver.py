"""The driver that runs a Terraform or OpenTofu module.

One `apply` per step does everything: the state is restored before it, shipped while it runs, and
read for the outputs after it. The exit code and the state decide the outcome, never the log.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from provisioning.drivers.base import (
    DriverError,
    DriverInput,
    DriverResult,
    Run,
    StateLocation,
    StoppedError,
    TemplateInterface,
)
from provisioning.drivers.supervisor import Outcome, supervise
from provisioning.drivers.terraform.installation import (
    find_installation,
    initialised_module,
    installation,
    tool_environment,
    tool_name,
)
from provisioning.drivers.terraform.messages import Messages
from provisioning.drivers.terraform.module import describe_module
from provisioning.drivers.terraform.state import STATE_FILES, Shipper, State, write_private
from provisioning.drivers.work_folder import occupied

VALUES_FILE = "conductor.tfvars.json"


class TerraformDriver:
    """Make a resource with a Terraform module."""

    name = "terraform"
    label = "Terraform / OpenTofu"

    def tool(self) -> tuple[str, str | None]:
        """Return the binary's name and version (None: not installed)."""
        found = find_installation()
        return (found.name, found.version) if found else (tool_name(), None)

    def describe(self, content: Path, config: Mapping[str, Any]) -> TemplateInterface:
        """Read the module's variables and outputs."""
        return describe_module(content)

    def ensure(self, resource: DriverInput, run: Run) -> DriverResult:
        """Apply the module and return the outputs that its state holds."""
        with occupied(run):
            state = _Application(resource, run).apply()
        return DriverResult(
            outputs=state.values(),
            sensitive=state.sensitive(),
            state_location=StateLocation(
                backend="conductor",
                location=f"resources/{resource.resource_id}",
                metadata={"serial": str(state.serial), "lineage": state.lineage},
            ),
        )

    def destroy(self, resource: DriverInput, run: Run) -> None:
        """Destroy everything that the resource's state holds."""
        with occupied(run):
            _Application(resource, run).destroy()


class _Application:
    """One run of the tool in the resource's own work folder."""

    def __init__(self, resource: DriverInput, run: Run) -> None:
        self.resource = resource
        self.run = run
        self.tool = installation()
        self.folder = run.work_folder
        self.cache_folder = self.folder.parent.parent / "terraform-init"
        self.cache_folder.mkdir(mode=0o700, exist_ok=True)
        self.shipper = Shipper(run, self.folder)

    def apply(self) -> State:
        self._restore()
        self._run_tool()
        state = self.shipper.current
        if state is None:
            raise DriverError(
                f"{self.tool.name} reported success, but wrote no state.", permanent=False
            )
        self._clean()
        return state

    def destroy(self) -> None:
        state = self._restore()
        if state is None or not state.resources:
            self.run.log("The state holds no resources: there is nothing to destroy.\n")
        else:
            self._run_tool("-destroy")
            left = self.shipper.current
            if left is None or left.resources:
                raise DriverError(
                    f"{self.tool.name} reported success, but the state still holds resources.",
                    permanent=False,
                )
        self._clean()

    def _restore(self) -> State | None:
        for name in self.resource.sensitive_params:
            _mask(self.run, self.resource.params.get(name))
        try:
            state = self.shipper.restore()
        except ValueError as error:
            raise DriverError(
                f"The resource cannot be changed: {error}.", permanent=True
            ) from error
        self._mask_outputs()
        return state

    def _mask_outputs(self) -> None:
        """Keep the state's sensitive outputs out of the log; of a new resource, they come with it."""
        state = self.shipper.current
        if state is not None:
            for name in state.sensitive():
                _mask(self.run, state.outputs[name].get("value"))

    def _run_tool(self, *options: str) -> None:
        module = initialised_module(self.resource, self.run, self.tool, self.cache_folder)
        self._clear()
        module.copy_to(self.folder)
        write_private(self.folder / VALUES_FILE, self._values(module.variables))
        environment = tool_environment(self.run, self.cache_folder)
        if not module.has_providers:
            # The tool alone needs little memory; collecting it is a quarter of a short run's time.
            environment.setdefault("GOGC", "400")
        messages = Messages(self.run, self.shipper.ship)
        arguments = [
            self.tool.binary, "apply", *options, "-auto-approve", "-input=false", "-json",
            f"-var-file={VALUES_FILE}",
        ]  # fmt: skip
        outcome = supervise(
            arguments,
            run=self.run,
            folder=self.folder,
            environment=environment,
            on_line=messages.line,
            on_tick=self.shipper.tick,
        )
        self.shipper.finish()
        self._mask_outputs()
        self._judge(outcome, messages)

    def _values(self, variables: frozenset[str]) -> bytes:
        resource = self.resource
        provided = {
            "conductor_context": dict(resource.context),
            "conductor_name": resource.name,
            "conductor_resource_id": resource.resource_id,
            "conductor_tags": dict(resource.context.get("tags") or {}),
            "conductor_uid": resource.uid,
        }
        values = {name: value for name, value in provided.items() if name in variables}
        return json.dumps(values | dict(resource.params)).encode()

    def _judge(self, outcome: Outcome, messages: Messages) -> None:
        if outcome.exit_code == 0:
            return
        if outcome.stopped is not None:
            self._clean()
            message = f"{self.tool.name} was stopped ({outcome.stopped}); its state is stored."
            raise StoppedError(message, outcome.stopped)
        how = (
            f"was killed by signal {-outcome.exit_code}"
            if outcome.exit_code < 0
            else f"failed (exit status {outcome.exit_code})"
        )
        self._clean()
        raise DriverError(f"{self.tool.name} apply {how}: {messages.summary()}", permanent=False)

    def _clear(self) -> None:
        """Remove what an earlier attempt, perhaps of another version, has left besides the state."""
        for path in self.folder.iterdir():
            if path.name in STATE_FILES:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _clean(self) -> None:
        """Leave no secret behind; it is called only when the state has been stored."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _mask(run: Run, value: object) -> None:
    for text in _texts(value):
        run.mask(text)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str) and value:
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
