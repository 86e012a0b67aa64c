"""Everything deciding needs, as plain data: what `provisioning.snapshot` reads from the models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from provisioning.planning.addresses import environment_of, path_of


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """One template version; `outputs` maps an output's name to whether it is sensitive.

    `checks` are what is looked at afterwards, for each consumer (`planning.checks`);
    `requirements` and `co_provision` are what it needs besides itself, as docs/components.md says;
    `inputs` maps params that the template fills in itself to what they are filled with; needs that
    differ in a param of `share_same` do not share one resource; `naming` has the rule for names.
    """

    id: int
    template: str
    version: str
    digest: str
    driver: str
    params_schema: Mapping[str, Any]
    outputs: Mapping[str, bool]
    uses: tuple[str, ...] = ()
    deletion_policy: str = "delete"
    merge_rules: Mapping[str, Any] = field(default_factory=dict)
    shrink: str = "apply"
    grace: int = 0
    share_when: str = ""
    checks: Sequence[Mapping[str, str]] = ()
    requirements: Sequence[Mapping[str, Any]] = ()
    co_provision: Sequence[Mapping[str, Any]] = ()
    inputs: Mapping[str, Any] = field(default_factory=dict)
    share_same: tuple[str, ...] = ()
    naming: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TemplateFacts:
    """One template with its newest active version, or None if it has none."""

    id: int
    name: str
    newest: VersionFacts | None


@dataclass(frozen=True, slots=True)
class RuleFacts:
    """One template rule; an empty field matches everything."""

    template_id: int
    type: str
    class_: str = ""
    resource_id: str = ""
    environment_kind: str = ""
    environment: str = ""
    application: str = ""


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """What makes a resource one that others find by criteria, and who may join it.

    At most `max_consumers` aliases use it (None: any number); `conditional` means that only those
    may for whom its template's `share_when` holds.
    """

    slot: str
    ordinal: int
    max_consumers: int | None = None
    conditional: bool = False


@dataclass(frozen=True, slots=True)
class PoolFacts:
    """One pool: what its members are like, and the keys of those that may be claimed, oldest first.

    `members` counts all there are, the claimed included. `closed`: only the owning team may claim.
    """

    name: str
    type: str
    class_: str
    version: VersionFacts
    params: Mapping[str, Any]
    owner_team: str
    max_size: int
    members: int = 0
    ready: tuple[str, ...] = ()
    closed: bool = False


@dataclass(frozen=True, slots=True)
class ResourceFacts:
    """One live resource. `clean`: what was last applied is what is desired.

    `granted`: its owners have allowed the application, or its team, to use it.

    `adopted`: no driver ever runs on it. `importing` names what its driver still has to take in. `grace`: seconds that it outlives its last consumer.
    `trouble` says, if the last step on it failed, which deployment's it was. `floor` has the params
    below which it does not shrink. `pool` names the pool of a member, `claimed` or not. `published`:
    other organisations may find it.
    """

    id: str
    key: str
    name: str
    uid: str
    type: str
    class_: str
    version: VersionFacts
    params: Mapping[str, Any]
    context: Mapping[str, Any]
    spec_digest: str
    owner_team: str
    created_by: str
    clean: bool
    deleting: bool = False
    protected: bool = False
    deletion_policy: str = "delete"
    sharing_policy: str = "approval"
    granted: bool = False
    adopted: bool = False
    importing: tuple[str, ...] = ()
    grace: int = 0
    trouble: str = ""
    floor: Mapping[str, Any] = field(default_factory=dict)
    slot: SlotFacts | None = None
    pool: str = ""
    claimed: bool = False
    published: bool = False
    created_at: str = ""


@dataclass(frozen=True, slots=True)
class ConsumerFacts:
    """One active consumer, of an application of the `team`.

    `params` is None if its declaration names none.

    `matching` are the criteria by which a consumer of mode `match` has found its resource.
    """

    application: str
    workload: str
    alias: str
    key: str
    mode: str
    params: Mapping[str, Any] | None = None
    depends_on: tuple[str, ...] = ()
    matching: Mapping[str, Any] | None = None
    priority: int | None = None
    team: str = ""


@dataclass(frozen=True, slots=True)
class WorkloadFacts:
    """One workload of the application as it was last deployed."""

    name: str
    ports: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EnvironmentFacts:
    """What counts of another environment for the resources that are there; see Snapshot."""

    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    missing_tools: Mapping[str, str] = field(default_factory=dict)
    protected: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One application in one environment, with everything it may meet there and elsewhere.

    `resources` are the live ones by key; `dependencies` maps (source key, target key) to the kind;
    `pools` are by name; `defaults` maps a type, or `*`, to params that nobody asked for;
    `missing_tools` maps a driver's name to the tool that no worker has; `protected` means that each
    deployment to the environment has to be approved.

    Everything is named as this environment does it (`planning.addresses`): resources of other
    environments by their addresses, also inside params, and applications and teams from elsewhere
    by names that none has here. `elsewhere` has these environments by path.
    """

    organisation: str
    application: str
    team: str
    environment: str
    environment_kind: str
    tags: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    templates: Mapping[int, TemplateFacts] = field(default_factory=dict)
    rules: Sequence[RuleFacts] = ()
    resources: Mapping[str, ResourceFacts] = field(default_factory=dict)
    consumers: Sequence[ConsumerFacts] = ()
    dependencies: Mapping[tuple[str, str], str] = field(default_factory=dict)
    workloads: Mapping[str, WorkloadFacts] = field(default_factory=dict)
    missing_tools: Mapping[str, str] = field(default_factory=dict)
    protected: bool = False
    pools: Mapping[str, PoolFacts] = field(default_factory=dict)
    elsewhere: Mapping[str, EnvironmentFacts] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Return the path of the environment."""
        return path_of(self.organisation, self.environment)

    def around(self, key: str) -> EnvironmentFacts | Snapshot:
        """Return what counts of the environment in which the resource with this key is."""
        path = environment_of(key)
        return self.elsewhere[path] if path else self
