"""Run the tool's commands in a resource's work folder, and judge how they ended."""

from __future__ import annotations

from pathlib import Path

from provisioning.drivers.base import DriverError, DriverInput, Run, StoppedError
from provisioning.drivers.folders import remove_folder, remove_left
from provisioning.drivers.output import printable
from provisioning.drivers.sandbox import starved_hint
from provisioning.drivers.supervision import follow
from provisioning.drivers.terraform.hearing_out import hearing_out
from provisioning.drivers.terraform.installation import (
    installation,
    seen_by_tool,
    tool_environment,
)
from provisioning.drivers.terraform.keeper import LockedError, tool_error
from provisioning.drivers.terraform.messages import Messages
from provisioning.drivers.terraform.module_cache import (
    InitialisedModule,
    cache_folder,
    initialised_module,
)
from provisioning.drivers.terraform.shipping import STATE_FILES
from provisioning.drivers.tool import Outcome, Tool

VALUES_FILE = "conductor.tfvars.json"
_FRAME = " │╷╵"


class Commands:
    """Know the tool, and what it needs to see and to know; whoever finds more adds it.

    `options` are words for the commands that lock the state.
    """

    def __init__(self, resource: DriverInput, run: Run) -> None:
        self.run = run
        self.folder = run.work_folder
        self.tool = installation(str(resource.config.get("version") or ""))
        self.cache_folder = cache_folder(self.folder.parent)
        self.cache_folder.mkdir(mode=0o711, exist_ok=True)
        self.environment = tool_environment(run, self.cache_folder)
        self.readable = seen_by_tool(self.tool, self.environment)
        self.writable: list[Path] = []
        self.options: tuple[str, ...] = ()

    def lay_module(self, resource: DriverInput, *, own_data: bool) -> InitialisedModule:
        """Lay a module into the folder, in place of all but the state."""
        module = initialised_module(resource, self.run, self.tool, self.cache_folder)
        self._clear()
        module.copy_to(self.folder, own_data=own_data)
        self.readable = [module.folder, *self.readable]
        if not module.has_providers:
            # The tool alone needs little memory; collecting it is a quarter of a short run's time.
            self.environment.setdefault("GOGC", "400")
        return module

    def start(self, *words: str, run: Run | None = None) -> Tool:
        """Start a command; of those, only an apply is worth to be followed by another attempt."""
        return Tool.start(
            [self.tool.binary, *words],
            run=run or self.run,
            folder=self.folder,
            environment=self.environment,
            readable=self.readable,
            writable=self.writable,
            followable=words[0] == "apply",
        )

    def start_on_values(self, *words: str) -> Tool:
        """Start a command that takes the module's values and locks the state."""
        return self.start(
            *words, *self.options, "-input=false", "-json", f"-var-file={VALUES_FILE}"
        )

    def read(self, *words: str) -> bytes:
        """Run a command to its end; return what it printed, which is not logged.

        A run that is told to stop lets it end all the same: what was made has to be known.
        """
        errors: list[str] = []

        def heard(stream: str, line: str) -> None:
            if stream == "stderr":
                errors.append(printable(line).strip(_FRAME))

        run = hearing_out(self.run)
        tool = self.start(*words, run=run)
        outcome = follow(tool, run=run, on_line=heard)
        command = " ".join(word for word in words[:2] if not word.startswith("-"))
        self._judge(outcome, command, "\n".join(line for line in errors if line))
        return (tool.files / "stdout.log").read_bytes()

    def judge(self, outcome: Outcome, messages: Messages) -> None:
        """Raise what the end of a command means, unless it succeeded."""
        self._judge(outcome, "", messages.summary(), starved=messages.starved)

    def clean(self) -> None:
        """Leave no secret behind; it is called only when the state has been stored."""
        remove_folder(self.folder)

    def _judge(self, outcome: Outcome, command: str, said: str, *, starved: bool = False) -> None:
        if outcome.exit_code == 0:
            return
        if outcome.stopped is not None:
            self.clean()
            message = f"{self.tool.name} was stopped ({outcome.stopped}); its state is stored."
            raise StoppedError(message, outcome.stopped)
        how = (
            f"was killed by signal {-outcome.exit_code}"
            if outcome.exit_code < 0
            else f"failed (exit status {outcome.exit_code})"
        )
        what = f"{self.tool.name} {command}".strip()
        error = tool_error(f"{what} {how}: {said}")
        if starved and not isinstance(error, LockedError):
            error = DriverError(f"{error}\n{starved_hint(self.folder)}", permanent=True)
        if not isinstance(error, LockedError):  # which may be gone when it is tried again
            self.clean()
        raise error

    def _clear(self) -> None:
        """Remove what an earlier attempt, perhaps of another version, has left besides the state."""
        for path in self.folder.iterdir():
            if path.name not in STATE_FILES:
                remove_left(path)
