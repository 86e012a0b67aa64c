"""A driver that runs an executable with score-compose's `cmd://` contract.

The executable reads one JSON object from standard input (`resource_uid`, `resource_type`,
`resource_class`, `resource_id`, `resource_params`, `resource_metadata`, `source_workload`,
`workload_services`, `resource_state`, `shared_state`, `compose_project_name`,
`mount_directory_path`) and writes one to standard output (`resource_outputs`, `resource_state`,
`shared_state`). Standard error is its log. Contract: score-compose, internal/provisioners/core.go.

The template's `config`: `command` (a file of the template, or a program on PATH), `args`,
`destroy_args` (the contract knows no destroy: without them the state is only forgotten, with them
the command is run with them and the same input).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from provisioning.drivers.base import (
    DriverError,
    DriverInput,
    DriverResult,
    LeaseLostError,
    Run,
    StateLocation,
    StoppedError,
    TemplateInterface,
    declared_sensitive,
    workload_ports,
)
from provisioning.drivers.folders import remove_folder, write_private
from provisioning.drivers.output import printable
from provisioning.drivers.sandbox import is_starved, starved_hint
from provisioning.drivers.supervision import ToolLostError, follow
from provisioning.drivers.tool import Outcome, Tool
from provisioning.drivers.work_folder import occupied

# What the contract lets a command answer. The last ones describe Docker Compose services.
_KNOWN_ANSWERS = frozenset({"resource_state", "resource_outputs", "shared_state"})
_COMPOSE_ANSWERS = frozenset(
    {
        "relative_directories", "relative_file_contents", "compose_networks", "compose_volumes",
        "compose_services", "compose_models",
    }
)  # fmt: skip
_LONGEST_ANSWER = 16 * 1024 * 1024

State = dict[str, dict[str, Any]]


class ScriptDriver:
    """Make a resource with an executable."""

    name = "script"
    label = "Script (cmd:// contract)"

    def tool(self) -> None:
        """Need no tool besides the template's own command."""

    def describe(self, content: Path, config: Mapping[str, Any]) -> TemplateInterface:
        """Check the command; params and outputs are declared in `template.yaml`."""
        _command(content, config)
        schema = {"type": "object", "properties": {}, "additionalProperties": True}
        return TemplateInterface(schema, ())

    def ensure(self, resource: DriverInput, run: Run) -> DriverResult:
        """Run the command, store the state it answers and return its outputs."""
        before = _state(run)
        command = _Command(resource, run)
        with command.carried_out(_words(resource.config, "args"), before) as said:
            answer = _answer(Path(command.program).name, said)
            outputs = _object(answer, "resource_outputs")
            state: State = {
                "resource_state": _object(answer, "resource_state"),
                "shared_state": _patched(before["shared_state"], _object(answer, "shared_state")),
            }
            run.ship_state(json.dumps(state, sort_keys=True).encode())
        sensitive = declared_sensitive(resource.outputs, outputs)
        for name in sensitive:
            run.mask(str(outputs[name]))
        place = StateLocation("conductor", f"resources/{resource.resource_id}")
        return DriverResult(outputs, sensitive, place)

    def destroy(self, resource: DriverInput, run: Run) -> None:
        """Run the command with `destroy_args`, if the template has them, and empty the state."""
        before = _state(run)
        if "destroy_args" in resource.config:
            words = _words(resource.config, "destroy_args")
            with _Command(resource, run).carried_out(words, before):
                run.ship_state(b"{}")
        else:
            run.log("The template has no destroy_args: nothing is run, the state is forgotten.\n")
            run.ship_state(b"{}")


class _Command:
    def __init__(self, resource: DriverInput, run: Run) -> None:
        self.resource = resource
        self.tell = run
        self.program = _command(resource.content, resource.config)
        self.folder = run.work_folder

    @contextmanager
    def carried_out(self, words: list[str], before: State) -> Iterator[str]:
        """Run the command, or hear to its end the one that the attempt before this one began.

        Yields what it wrote to standard output. Whoever takes that stores the state before leaving:
        what the command said stays in the folder until then, for the next attempt.
        """
        with occupied(self.tell, keep_tool=True):
            for name in self.resource.sensitive_params:
                self.tell.mask(str(self.resource.params.get(name, "")) or name)
            try:
                yield self._finish_left() or self._follow(self._start(words, before))
            except LeaseLostError:
                raise  # the command, or what it said, is for whoever has the step now
            except Exception:
                remove_folder(self.folder)
                raise
            remove_folder(self.folder)

    def _finish_left(self) -> str:
        left = Tool.left_in(self.folder)
        if left is None:
            return ""
        left.take_over(self.tell)
        self.tell.log("Following what the attempt before this one began, from its first line on.\n")
        try:
            return self._follow(left)
        except ToolLostError as error:
            self.tell.log(f"{error} It is begun again.\n", level="warning")
            return ""

    def _start(self, words: list[str], before: State) -> Tool:
        question = self.folder / "input.json"
        write_private(question, json.dumps(_question(self.resource, before, self.folder)).encode())
        environment = {"PATH": os.environ.get("PATH", os.defpath)} | {
            name: value
            for name, value in self.tell.environment.items()
            if not name.startswith("CONDUCTOR_")
        }
        return Tool.start(
            [self.program, *words],
            run=self.tell,
            folder=self.folder,
            environment=environment,
            stdin=question,
            readable=[self.resource.content],
        )

    def _follow(self, tool: Tool) -> str:
        """Return what the command wrote to standard output, and a line's end."""
        heard: list[str] = []
        errors: list[str] = []

        def listen(stream: str, line: str) -> None:
            if stream == "stdout":
                heard.append(line)
            else:
                errors.append(printable(line))
                self.tell.log(printable(line) + "\n", stream=stream)

        self._judge(follow(tool, run=self.tell, on_line=listen, forget=False), errors)
        return "\n".join(heard) + "\n"

    def _judge(self, outcome: Outcome, errors: list[str]) -> None:
        name = Path(self.program).name
        if outcome.exit_code and outcome.stopped:
            raise StoppedError(f"{name} was stopped ({outcome.stopped}).", outcome.stopped)
        if outcome.exit_code:
            last = " ".join(line for line in errors[-5:] if line.strip())
            message = f"{name} failed (exit status {outcome.exit_code}): {last}"
            starved = any(map(is_starved, errors))
            if starved:
                message = f"{message} {starved_hint(self.folder)}"
            raise DriverError(message, permanent=starved)


def _command(content: Path, config: Mapping[str, Any]) -> str:
    command = str(config.get("command") or "")
    if not command:
        raise DriverError("config.command must name the executable to run.", permanent=True)
    own = (content / command).resolve()
    if own.is_relative_to(content.resolve()) and own.is_file():
        if not os.access(own, os.X_OK):
            raise DriverError(f"{command} is not executable: run chmod +x on it.", permanent=True)
        return str(own)
    found = None if "/" in command else shutil.which(command)
    if found is None:
        message = f"config.command: there is no {command!r} in the template's folder or on PATH."
        raise DriverError(message, permanent=True)
    return found


def _words(config: Mapping[str, Any], key: str) -> list[str]:
    words = config.get(key) or []
    if not isinstance(words, list):
        raise DriverError(f"config.{key} must be a list of arguments.", permanent=True)
    return [str(word) for word in words]


def _state(run: Run) -> State:
    stored = json.loads(run.load_state() or b"{}")
    return {name: dict(stored.get(name) or {}) for name in ("resource_state", "shared_state")}


def _question(resource: DriverInput, before: State, folder: Path) -> dict[str, Any]:
    services = {
        # The reference spells the first key both ways: by accident, and as documented.
        workload: {"ServiceName": workload, "service_name": workload, "ports": ports}
        for workload, ports in workload_ports(resource.context).items()
    }
    return {
        "resource_uid": resource.uid,
        "resource_type": resource.type,
        "resource_class": resource.class_,
        "resource_id": resource.uid.partition("#")[2],
        "resource_params": dict(resource.params),
        "resource_metadata": dict(resource.context.get("metadata") or {}),
        "source_workload": resource.context.get("workload", ""),
        "workload_services": services,
        **before,
        "compose_project_name": resource.context.get("application", ""),
        "mount_directory_path": str(folder / "mounts"),
    }


def _answer(name: str, text: str) -> dict[str, Any]:
    try:
        answer = json.loads(text[:_LONGEST_ANSWER])
    except ValueError as error:
        raise DriverError(f"{name} did not answer with JSON: {error}.", permanent=True) from error
    if not isinstance(answer, dict):
        raise DriverError(f"{name} answered with JSON that is no object.", permanent=True)
    for key in sorted(answer):
        if key in _COMPOSE_ANSWERS and answer[key]:
            raise DriverError(
                f"{name} answered {key!r}, which describes Docker Compose; Conductor cannot use it.",
                permanent=True,
            )
        if key not in _KNOWN_ANSWERS | _COMPOSE_ANSWERS:
            raise DriverError(f"{name} answered {key!r}, which the contract lacks.", permanent=True)
    return answer


def _object(answer: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = answer.get(key)
    if value is not None and not isinstance(value, dict):
        raise DriverError(f"The answer's {key!r} must be an object.", permanent=True)
    return value or {}


def _patched(before: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return shared state after a JSON merge patch (RFC 7386), as the reference does it."""
    result = dict(before)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            known = result.get(key)
            result[key] = _patched(known if isinstance(known, Mapping) else {}, value)
        else:
            result[key] = value
    return result
