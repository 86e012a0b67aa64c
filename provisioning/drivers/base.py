"""What a driver is given, what it answers, and what it may ask of the worker that runs it.

A driver turns one resource's desired input into a real thing and back. It sees no database rows and
no queue: everything it needs is in its `DriverInput`, and everything it reports goes through its
`Run`. `docs/adding-a-driver.md` shows a whole one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from provisioning.drivers.external_state import ExternalState
from provisioning.exceptions import ConductorError

ANY_OUTPUT = "*"


class DriverError(ConductorError):
    """Say why a driver could not do its work, and whether trying again can help.

    `permanent` is true when only a changed input, template or installation can help.
    """

    def __init__(self, message: str, permanent: bool) -> None:
        super().__init__(message)
        self.permanent = permanent


class StoppedError(DriverError):
    """Say that the run was told to stop before the work was done.

    `reason` is what `Run.should_stop` answered: "cancelled", "timed out" or "lease lost".
    """

    def __init__(self, message: str, reason: str = "cancelled") -> None:
        super().__init__(message, permanent=False)
        self.reason = reason


class LeaseLostError(ConductorError):
    """Say that another worker owns this step now, so nothing may be written any more."""


@dataclass(frozen=True, slots=True)
class Output:
    """Describe one output; the name `*` stands for any name."""

    name: str
    sensitive: bool = False
    description: str = ""
    type: str = "string"


@dataclass(frozen=True, slots=True)
class TemplateInterface:
    """Hold what a template takes (a JSON Schema of an object) and what it gives."""

    params_schema: dict[str, Any]
    outputs: tuple[Output, ...]


@dataclass(frozen=True, slots=True)
class StateLocation:
    """Say where a resource's state is kept: how, where (for people), and what finds it there.

    None of it is a secret.
    """

    backend: str
    location: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Consumer:
    """Describe one who is given a resource's outputs: a workload's alias, or a dependent resource.

    `id` stays as long as it uses the resource and is nobody's afterwards; `name` is for people.
    `previous_outputs` are its own of the last success.
    """

    id: str
    name: str
    previous_outputs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DriverInput:
    """Hold everything a driver is told about one resource.

    `params` have their placeholders substituted; `sensitive_params` names those that hold a secret.
    `content` is the read-only folder of the template version, `content_digest` its digest, `config`
    the `config` block of its `template.yaml` and `outputs` its declared outputs.
    `context` has `organisation`, `application`, `environment`, `environment_kind`, `workload`,
    `metadata` and `tags`, and what the template `uses`: `workloads` (`{name: {"ports": {name:
    {"port", "targetPort", "protocol"}}}}`) and `variables` of the environment.
    `previous_outputs` are those of the last success. `state` is where its state is kept, for a
    driver that can keep it in several places. `imports` maps where existing things are to be taken in
    to their ids, for an `Importer` alone; only with `import_changes` may more be changed.
    `consumers` are all there are, or None if the template does not say that it `uses` them; what
    others were given has to stop working.
    """

    resource_id: str
    uid: str
    type: str
    class_: str
    name: str
    params: Mapping[str, Any]
    sensitive_params: frozenset[str]
    content: Path
    content_digest: str
    config: Mapping[str, Any]
    outputs: tuple[Output, ...]
    context: Mapping[str, Any]
    previous_outputs: Mapping[str, Any]
    imports: Mapping[str, str] = field(default_factory=dict)
    import_changes: bool = False
    consumers: tuple[Consumer, ...] | None = None
    state: StateLocation | None = None


@dataclass(frozen=True, slots=True)
class DriverResult:
    """Hold the outputs, the names of the sensitive ones, and where the state is kept.

    `consumer_outputs` has, by a consumer's id, what it alone is given: over `outputs`, or besides.
    """

    outputs: Mapping[str, Any]
    sensitive: frozenset[str] = frozenset()
    state_location: StateLocation | None = None
    consumer_outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Run(Protocol):
    """Give a driver its work folder, its limits and the worker's ear.

    `step` and `attempt` name what is done and the how many-eth try at it this is; it is `recovering` if
    an earlier try was lost with its worker. `environment` is the allow-listed environment for
    children, `deadline` a `time.monotonic` value, and `external_state` is for a driver whose tool writes
    a state. For as long as the worker holds the step, it says so in the file that
    `folders.lease_file` names, for the tool's supervisor.
    """

    @property
    def work_folder(self) -> Path: ...

    @property
    def step(self) -> int: ...

    @property
    def attempt(self) -> int: ...

    @property
    def recovering(self) -> bool: ...

    @property
    def environment(self) -> Mapping[str, str]: ...

    @property
    def deadline(self) -> float | None: ...

    @property
    def external_state(self) -> ExternalState: ...

    def log(self, text: str, *, stream: str = "stdout", level: str = "info") -> None:
        """Store log text; secrets that were masked do not appear in it."""

    def load_state(self) -> bytes | None:
        """Return the resource's last stored state."""

    def ship_state(
        self,
        state: bytes,
        *,
        serial: int | None = None,
        lineage: str = "",
        written_at: float | None = None,
    ) -> None:
        """Store a new version of the state; raise LeaseLostError when the step is another's now.

        With a serial, it must be of the stored one's lineage and have a higher serial, or be the same;
        else DriverError is raised. `written_at` is when the tool wrote it, by this host's clock.
        """

    def mask(self, value: str) -> None:
        """Keep a secret out of every log line from now on."""

    def should_stop(self) -> str | None:
        """Return why the run must stop ("cancelled", "timed out", "lease lost"), or None."""


@runtime_checkable
class StateLocator(Protocol):
    """Be a driver whose state can be kept where the environment says."""

    def locate_state(self, backend: Mapping[str, Any], resource_id: str) -> StateLocation:
        """Return where the state of a new resource is kept, by the environment's settings."""


@runtime_checkable
class Driver(Protocol):
    """Make a resource be as its input says, and make it gone; both may be repeated at any time."""

    name: str
    label: str

    def tool(self) -> tuple[str, str | None] | None:
        """Return the needed tool and its version (None: not installed), or None if none is needed."""

    def describe(self, content: Path, config: Mapping[str, Any]) -> TemplateInterface:
        """Read what the template's own content declares; raise a permanent DriverError if it is bad."""

    def ensure(self, resource: DriverInput, run: Run) -> DriverResult:
        """Bring the resource to its desired input; raise DriverError or StoppedError."""

    def destroy(self, resource: DriverInput, run: Run) -> None:
        """Make the resource gone; a resource that is gone already is a success."""


@runtime_checkable
class Importer(Protocol):
    """A driver whose ensure can take in what exists; repeating that is as harmless as the rest."""

    def check_imports(self, content: Path, imports: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Return ids by their place in the template, canonically written.

        Raises a permanent DriverError with everything that cannot be imported.
        """


def declared_sensitive(outputs: Iterable[Output], names: Iterable[str]) -> frozenset[str]:
    """Return which of the given output names the template declares sensitive."""
    by_name = {output.name: output.sensitive for output in outputs}
    open_ended = by_name.get(ANY_OUTPUT, False)
    return frozenset(name for name in names if by_name.get(name, open_ended))


def workload_ports(context: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the service ports of each workload in the context, by port name and by number.

    Each port is `{"name", "port", "target_port", "protocol"}`, with Score's defaults filled in.
    """
    workloads = context.get("workloads") or {}
    return {name: _ports(spec.get("ports") or {}) for name, spec in workloads.items()}


def _ports(declared: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    ports: dict[str, dict[str, Any]] = {}
    for name, said in declared.items():
        spec = said if isinstance(said, Mapping) else {"port": said}
        ports[name] = {
            "name": name,
            "port": spec["port"],
            "target_port": spec.get("targetPort", spec["port"]),
            "protocol": spec.get("protocol", "TCP"),
        }
    for port in list(ports.values()):
        ports.setdefault(str(port["port"]), port)
    return ports
