"""The driver that runs a Terraform or OpenTofu module.

One `apply` per step does everything: the state is restored before it, shipped while it runs, and
read for the outputs after it. The exit code and the state decide the outcome, never the log. An apply
whose worker died is followed to its end by the next attempt; one that was interrupted is recovered.
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from provisioning.drivers.supervision import CONTROL_FOLDER, Outcome, Tool, ToolLostError, follow
from provisioning.drivers.terraform.imports import (
    IMPORTS_FILE,
    changes_besides,
    check_imports,
    import_blocks,
    missing_imports,
    shown,
)
from provisioning.drivers.terraform.installation import (
    find_installations,
    initialised_module,
    installation,
    seen_by_tool,
    tool_environment,
    tool_names,
    version_constraint,
)
from provisioning.drivers.terraform.messages import Messages
from provisioning.drivers.terraform.module import describe_module
from provisioning.drivers.terraform.state import STATE_FILES, Shipper, State, write_private
from provisioning.drivers.work_folder import occupied

VALUES_FILE = "conductor.tfvars.json"
PLAN_FILE = "conductor.tfplan"
RETRY, STOP = "retry", "stop"
"""What `config.recovery` says is done, after an interruption, with what is still to be changed."""
_CHANGING = ("-auto-approve",)
_CHANGES = 2  # the exit status of `plan -detailed-exitcode`
_SHOWN_PENDING = 10


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

    def ensure(self, resource: DriverInput, run: Run) -> DriverResult:
        """Apply the module and return the outputs that its state holds."""
        with occupied(run, keep_tool=True):
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
        with occupied(run, keep_tool=True):
            _Application(resource, run).destroy()


class _Application:
    """One run of the tool in the resource's own work folder."""

    def __init__(self, resource: DriverInput, run: Run) -> None:
        self.resource = resource
        self.run = run
        self.tool = installation(str(resource.config.get("version") or ""))
        self.folder = run.work_folder
        self.cache_folder = self.folder.parent.parent / "terraform-init"
        self.cache_folder.mkdir(mode=0o711, exist_ok=True)
        self.shipper = Shipper(run, self.folder)
        self.environment: dict[str, str] = {}
        self.readable: list[Path] = []

    def apply(self) -> State:
        self._mask_params()
        if not self._finish_left() or self._to_import():
            self._restore()
            self._prepare()
            self._bring_about()
        state = self.shipper.current
        if state is None:
            raise DriverError(
                f"{self.tool.name} reported success, but wrote no state.", permanent=False
            )
        self._clean()
        return state

    def _bring_about(self) -> None:
        imports = self._to_import()
        if imports:
            self.run.log(f"Taking in what exists: {', '.join(sorted(imports))}.\n")
            write_private(self._free_file(IMPORTS_FILE), import_blocks(imports).encode())
        if imports and not self.resource.import_changes:
            self._import_alone()
        elif not (self.run.recovering and self._is_as_wanted()):
            self._follow(self._start("apply", *_CHANGING))
        if left := self._to_import():
            raise DriverError(
                f"{self.tool.name} reported success, but the state has no {', '.join(left)}.",
                permanent=False,
            )

    def _to_import(self) -> dict[str, str]:
        return missing_imports(self.resource.imports, self.shipper.current)

    def _import_alone(self) -> None:
        """Import if a plan shows that nothing else would be done; carry out that very plan."""
        messages = Messages(self.run, self.shipper.ship)
        plan = self._start("plan", f"-out={PLAN_FILE}")
        self._judge(follow(plan, run=self.run, on_line=messages.line), messages)
        said: dict[str, list[str]] = defaultdict(list)  # It holds secrets, so it is not logged.
        show = self._start_bare("show", "-json", PLAN_FILE)
        outcome = follow(show, run=self.run, on_line=lambda stream, line: said[stream].append(line))
        self._judge(outcome, messages)
        if changes := changes_besides("\n".join(said["stdout"])):
            self._clean()
            raise DriverError(
                f"Nothing was imported, because the module would also {shown(changes)}. Adopt it with "
                "the params that it was made with, or let that happen with --allow-changes.",
                permanent=True,
            )
        self._follow(self._start_bare("apply", "-input=false", "-json", PLAN_FILE))

    def _free_file(self, name: str) -> Path:
        """Return a path that the module does not use itself."""
        while (self.folder / name).exists():
            name = f"conductor_{name}"
        return self.folder / name

    def destroy(self) -> None:
        self._mask_params()
        if not self._finish_left():
            state = self._restore()
            if state is None or not state.resources:
                self.run.log("The state holds no resources: there is nothing to destroy.\n")
            else:
                self._prepare()
                self._follow(self._start("apply", "-destroy", *_CHANGING))
        left = self.shipper.current
        if left is not None and left.resources:
            raise DriverError(
                f"{self.tool.name} reported success, but the state still holds resources.",
                permanent=False,
            )
        self._clean()

    def _finish_left(self) -> bool:
        """Follow the tool that the attempt before this one left; return whether it did the work."""
        left = Tool.left_in(self.folder)
        if left is None:
            return False
        left.take_over(self.run)
        self.run.log("Following what the attempt before this one began, from its first line on.\n")
        self._load(self.shipper.resume)
        try:
            self._follow(left)
        except ToolLostError as error:
            self.run.log(f"{error} It is begun again.\n", level="warning")
            return False
        return True

    def _mask_params(self) -> None:
        for name in self.resource.sensitive_params:
            _mask(self.run, self.resource.params.get(name))

    def _restore(self) -> State | None:
        return self._load(self.shipper.restore)

    def _load(self, read: Callable[[], State | None]) -> State | None:
        try:
            state = read()
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

    def _prepare(self) -> None:
        """Lay the module and the values beside the state."""
        module = initialised_module(self.resource, self.run, self.tool, self.cache_folder)
        self._clear()
        module.copy_to(self.folder)
        write_private(self.folder / VALUES_FILE, self._values(module.variables))
        self.environment = tool_environment(self.run, self.cache_folder)
        self.readable = [module.folder, *seen_by_tool(self.tool, self.environment)]
        if not module.has_providers:
            # The tool alone needs little memory; collecting it is a quarter of a short run's time.
            self.environment.setdefault("GOGC", "400")

    def _start(self, *words: str) -> Tool:
        return self._start_bare(*words, "-input=false", "-json", f"-var-file={VALUES_FILE}")

    def _start_bare(self, *words: str) -> Tool:
        return Tool.start(
            [self.tool.binary, *words],
            run=self.run,
            folder=self.folder,
            environment=self.environment,
            readable=self.readable,
            followable=words[0] == "apply",
        )

    def _is_as_wanted(self) -> bool:
        """Look, after an earlier attempt was lost, at what is really there and at what is left to do.

        Returns whether nothing is. Raises DriverError if something is and the template wants a person
        to look at it before it is done.
        """
        self.run.log("An earlier attempt was lost: comparing its state with what is there.\n")
        self._compare()
        pending = self._pending()
        if pending and self.resource.config.get("recovery") == STOP:
            raise DriverError(
                f"An attempt was lost in the middle, and {len(pending)} changes are still to be made "
                f"({', '.join(pending[:_SHOWN_PENDING])}). Its template wants a person to look at them "
                "first: retry the deployment to make them.",
                permanent=True,
            )
        return not pending

    def _compare(self) -> None:
        """Say whether what is there differs from the state."""
        outcome, messages = self._plan("-refresh-only")
        if outcome.stopped:
            self._judge(outcome, messages)
        if outcome.exit_code == _CHANGES:
            self.run.log("What is there differs from the state; it is brought up to date.\n")
        elif outcome.exit_code:
            # Without the resources that are still to be made, outputs that use them are errors.
            self.run.log("The state is of a module half made: a whole plan tells what is there.\n")

    def _pending(self) -> list[str]:
        """Return the changes that are still to be made, by action and address."""
        outcome, messages = self._plan()
        if outcome.exit_code == _CHANGES:
            return sorted(messages.planned) or ["change outputs"]
        self._judge(outcome, messages)
        return []

    def _plan(self, *words: str) -> tuple[Outcome, Messages]:
        messages = Messages(self.run, self.shipper.ship)
        tool = self._start("plan", "-detailed-exitcode", *words)
        return follow(tool, run=self.run, on_line=messages.line), messages

    def _follow(self, tool: Tool) -> None:
        messages = Messages(self.run, self.shipper.ship)
        try:
            outcome = follow(tool, run=self.run, on_line=messages.line, on_tick=self.shipper.tick)
        except ToolLostError:
            self._ship_last()
            raise
        self._ship_last()
        self._judge(outcome, messages)

    def _ship_last(self) -> None:
        self.shipper.finish()
        self._mask_outputs()

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
        raise DriverError(f"{self.tool.name} {how}: {messages.summary()}", permanent=False)

    def _clear(self) -> None:
        """Remove what an earlier attempt, perhaps of another version, has left besides the state."""
        for path in self.folder.iterdir():
            if path.name in (*STATE_FILES, CONTROL_FOLDER):
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
