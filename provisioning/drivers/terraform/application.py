"""Bring one resource about, or make it gone, with Terraform or OpenTofu.

One `apply` per step does everything: the state is restored before it, kept while it runs, and read for
the outputs after it. The exit code and the state decide the outcome, never the log. An apply whose
worker died is followed to its end by the next attempt; one that was interrupted is recovered.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from provisioning.drivers.base import DriverError, DriverInput, Run, StoppedError
from provisioning.drivers.folders import write_private
from provisioning.drivers.supervision import ToolLostError, follow
from provisioning.drivers.terraform.backends import MANAGED, is_external, locate
from provisioning.drivers.terraform.commands import VALUES_FILE, Commands
from provisioning.drivers.terraform.external import ExternalKeeper
from provisioning.drivers.terraform.imports import (
    IMPORTS_FILE,
    changes_besides,
    import_blocks,
    missing_imports,
    shown,
)
from provisioning.drivers.terraform.keeper import LockedError, StateKeeper
from provisioning.drivers.terraform.messages import Messages
from provisioning.drivers.terraform.shipping import Shipper
from provisioning.drivers.terraform.state import State
from provisioning.drivers.tool import Outcome, Tool

T = TypeVar("T")

PLAN_FILE = "conductor.tfplan"
RETRY, STOP = "retry", "stop"
"""What `config.recovery` says is done, after an interruption, with what is still to be changed."""
_CHANGES = 2  # the exit status of `plan -detailed-exitcode`
_SHOWN_PENDING = 10


class Application:
    """Be one run of the tool in the resource's own work folder."""

    def __init__(self, resource: DriverInput, run: Run) -> None:
        self.resource = resource
        self.run = run
        self.commands = Commands(resource, run)
        self.prepared = False
        self._masked: State | None = None
        location = resource.state or locate({"type": MANAGED}, resource.resource_id)
        self.external = is_external(location)
        self.keeper: StateKeeper = (
            ExternalKeeper(run, self.commands, location)
            if self.external
            else Shipper(run, run.work_folder, location)
        )

    def apply(self) -> State:
        """Bring the resource about and return its state; the folder is gone then."""
        self._mask_params()
        if not self._finish_left() or self._to_import():
            self._restore()
            self._stop_if_told()
            self._prepare()
            self._bring_about()
        state = self.keeper.current
        if state is None:
            raise DriverError(
                f"{self.commands.tool.name} reported success, but wrote no state.", permanent=False
            )
        self.commands.clean()
        return state

    def destroy(self) -> None:
        """Destroy all that the state holds; the folder is gone then."""
        self._mask_params()
        if not self._finish_left():
            state = self._restore()
            self._stop_if_told()
            if state is None or not state.instances:
                self.run.log("The state holds no resources: there is nothing to destroy.\n")
            else:
                self._prepare()
                self._change("-destroy")
        left = self.keeper.current
        if left is not None and left.instances:
            raise DriverError(
                f"{self.commands.tool.name} reported success, but the state still holds resources.",
                permanent=False,
            )
        self.commands.clean()

    def _finish_left(self) -> bool:
        """Follow the tool that the attempt before this one left; return whether it did the work."""
        left = Tool.left_in(self.run.work_folder)
        if left is None:
            return False
        left.take_over(self.run)
        self.run.log("Following what the attempt before this one began, from its first line on.\n")
        self.keeper.resume()
        self._mask_state()
        try:
            self._follow(left)
        except ToolLostError as error:
            self.run.log(f"{error} It is begun again.\n", level="warning")
            return False
        return True

    def _restore(self) -> State | None:
        """Return the last state; an external one is read by the tool, which needs the module."""
        if self.external:
            self._prepare()
        state = self._past_left_lock(self.keeper.restore)
        self._mask_state()
        return state

    def _stop_if_told(self) -> None:
        """Begin nothing for a deployment that is being stopped; what was left is stored by now."""
        if reason := self.run.should_stop():
            self.commands.clean()
            raise StoppedError(f"{self.commands.tool.name} was not begun again.", reason)

    def _prepare(self) -> None:
        """Lay the module and its values into the folder, once."""
        if self.prepared:
            return
        self.prepared = True
        module = self.commands.lay_module(self.resource, own_data=self.external)
        write_private(self.run.work_folder / VALUES_FILE, self._values(module.variables))
        self.keeper.prepare()

    def _bring_about(self) -> None:
        imports = self._to_import()
        if imports:
            self.run.log(f"Taking in what exists: {', '.join(sorted(imports))}.\n")
            write_private(self._free_file(IMPORTS_FILE), import_blocks(imports).encode())
        if imports and not self.resource.import_changes:
            self._past_left_lock(self._import_alone)
        elif not (self._was_interrupted() and self._is_as_wanted()):
            self._change()
        if left := self._to_import():
            raise DriverError(
                f"{self.commands.tool.name} reported success, but the state has no {', '.join(left)}.",
                permanent=False,
            )

    def _to_import(self) -> dict[str, str]:
        return missing_imports(self.resource.imports, self.keeper.current)

    def _import_alone(self) -> None:
        """Import if a plan shows that nothing else would be done; carry out that very plan."""
        outcome, messages = self._plan(f"-out={PLAN_FILE}")
        self.commands.judge(outcome, messages)
        # It holds secrets, so it is not logged.
        plan = self.commands.read("show", "-json", PLAN_FILE)
        if changes := changes_besides(plan.decode("utf-8", "replace")):
            self.commands.clean()
            raise DriverError(
                f"Nothing was imported, because the module would also {shown(changes)}. Adopt it with "
                "the params that it was made with, or let that happen with --allow-changes.",
                permanent=True,
            )
        options = self.commands.options
        self._follow(self.commands.start("apply", *options, "-input=false", "-json", PLAN_FILE))

    def _free_file(self, name: str) -> Path:
        """Return a path that the module does not use itself."""
        while (self.run.work_folder / name).exists():
            name = f"conductor_{name}"
        return self.run.work_folder / name

    def _change(self, *words: str) -> None:
        def apply() -> None:
            self._follow(self.commands.start_on_values("apply", *words, "-auto-approve"))

        self._past_left_lock(apply)

    def _past_left_lock(self, work: Callable[[], T]) -> T:
        """Do something, once more if a lock that a dead run left was in its way."""
        try:
            return work()
        except LockedError as error:
            if self.keeper.free(error.lock):
                return work()
            self.commands.clean()
            raise

    def _was_interrupted(self) -> bool:
        """Tell whether an earlier attempt at this step may have left things half-done."""
        return self.run.recovering or (self.run.attempt > 1 and self.keeper.suspects)

    def _is_as_wanted(self) -> bool:
        """Look, after an earlier attempt was lost, at what is really there and at what is left to do.

        Returns whether nothing is. Raises DriverError if something is and the template wants a person
        to look at it before it is done.
        """
        self.run.log("An earlier attempt was lost: comparing its state with what is there.\n")
        self._past_left_lock(self._compare)
        pending = self._past_left_lock(self._pending)
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
        outcome, messages = self._plan("-detailed-exitcode", "-refresh-only")
        if outcome.stopped or messages.locked:
            self.commands.judge(outcome, messages)
        if outcome.exit_code == _CHANGES:
            self.run.log("What is there differs from the state; it is brought up to date.\n")
        elif outcome.exit_code:
            # Without the resources that are still to be made, outputs that use them are errors.
            self.run.log("The state is of a module half made: a whole plan tells what is there.\n")

    def _pending(self) -> list[str]:
        """Return the changes that are still to be made, by action and address."""
        outcome, messages = self._plan("-detailed-exitcode")
        if outcome.exit_code == _CHANGES:
            return sorted(messages.planned) or ["change outputs"]
        self.commands.judge(outcome, messages)
        return []

    def _plan(self, *words: str) -> tuple[Outcome, Messages]:
        messages = Messages(self.run, self.keeper.rescue)
        tool = self.commands.start_on_values("plan", *words)
        return follow(tool, run=self.run, on_line=messages.line), messages

    def _follow(self, tool: Tool) -> None:
        keeper = self.keeper
        messages = Messages(self.run, keeper.rescue, keeper.hear)
        try:
            outcome = follow(tool, run=self.run, on_line=messages.line, on_tick=self._tick)
        except ToolLostError:
            keeper.collect()
            self._mask_state()
            raise
        keeper.collect()
        try:
            keeper.conclude(killed=outcome.exit_code < 0)
        except DriverError as error:
            if outcome.exit_code == 0:
                raise
            self.run.log(f"{error}\n", level="warning")
        self._mask_state()
        self.commands.judge(outcome, messages)

    def _mask_params(self) -> None:
        for name in self.resource.sensitive_params:
            _mask(self.run, self.resource.params.get(name))

    def _tick(self) -> None:
        self.keeper.tick()
        self._mask_state()

    def _mask_state(self) -> None:
        """Keep what the state calls sensitive out of the log; a new resource's comes as it is made."""
        state = self.keeper.current
        if state is not None and state is not self._masked:
            self._masked = state
            for secret in state.secrets:
                _mask(self.run, secret)

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
