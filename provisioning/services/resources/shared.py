"""The resources that several applications may use: whose they are, and who uses them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Prefetch, Q
from django.db.models.functions import Coalesce

from provisioning.models import (
    ConsumerState,
    Environment,
    Organisation,
    Resource,
    ResourceConsumer,
    ResourceState,
    Step,
    StepStatus,
)
from provisioning.models.resources import OF_ONE_APPLICATION
from provisioning.planning.maintenance import consumer_name, short_name
from provisioning.services.resources.find import UnknownResourceError
from provisioning.snapshot.view import View


@dataclass(frozen=True, slots=True)
class Use:
    """One workload's use of a shared resource."""

    consumer: str
    alias: str
    since: datetime


@dataclass(frozen=True, slots=True)
class SharedResource:
    """One shared resource; `dependents` are the addresses of the resources that need it.

    `trouble` names the deployment that failed on it, if it is failed.
    """

    id: str
    name: str
    key: str
    type: str
    environment: str
    owner: str
    created_by: str
    created_at: datetime
    state: str
    trouble: str
    protected: bool
    deletion_policy: str
    adopted: bool
    published: bool
    unused_until: datetime | None
    uses: tuple[Use, ...]
    dependents: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values, except for times."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        uses = [{name: getattr(use, name) for name in use.__slots__} for use in self.uses]
        return plain | {"uses": uses, "dependents": list(self.dependents)}


def list_shared(
    *, organisation: Organisation, environment: Environment | None = None
) -> list[SharedResource]:
    """Return the live shared resources of an environment, or of all of the organisation's."""
    rows = Resource.objects.filter(environment__organisation=organisation)
    if environment is not None:
        rows = rows.filter(environment=environment)
    of_one = Q()
    for beginning in OF_ONE_APPLICATION:
        of_one |= Q(key__startswith=beginning)
    uses = (
        ResourceConsumer.objects.filter(state=ConsumerState.ACTIVE)
        .select_related("workload__application")
        # It was stored when its deployment asked, and counts since that has started.
        .annotate(since=Coalesce("deployment__started_at", "created_at"))
    )
    rows = (
        rows.exclude(state=ResourceState.DELETED)
        .exclude(of_one)
        .filter(pool=None)
        .select_related("environment", "owner_team", "created_by")
        .prefetch_related(
            Prefetch("consumers", uses.order_by("since", "pk"), to_attr="uses"),
            Prefetch(
                "steps",
                Step.objects.filter(status=StepStatus.FAILED).order_by("-pk"),
                to_attr="failures",
            ),
            "dependents__source",
        )
    )
    return [_shared(row) for row in rows.order_by("environment__name", "key")]


def inspect_shared(
    *, organisation: Organisation, name: str, environment: Environment | None = None
) -> SharedResource:
    """Return the shared resource of this name or key; raise UnknownResourceError.

    Without an environment, the name must be in one environment only.
    """
    everything = list_shared(organisation=organisation, environment=environment)
    found = [each for each in everything if name in (each.name, each.key, each.id)]
    if len(found) == 1:
        return found[0]
    if found:
        where = ", ".join(each.environment for each in found)
        raise UnknownResourceError(f"{name} is in {where}: name one with --env.")
    known = sorted({each.name for each in everything})
    hint = f"There are {', '.join(known[:10])}." if known else "There is none yet."
    raise UnknownResourceError(f"There is no shared resource {name}. {hint}")


def _shared(row: Any) -> SharedResource:
    view = View(row.environment)
    failed = row.failures[0] if row.state == ResourceState.FAILED and row.failures else None
    return SharedResource(
        id=str(row.pk),
        name=short_name(row.key),
        key=row.key,
        type=f"{row.type}.{row.class_name}",
        environment=row.environment.name,
        owner=row.owner_team.name,
        created_by=row.created_by.name if row.created_by else "",
        created_at=row.created_at,
        state=row.state,
        trouble=f"deployment {failed.deployment_id} failed on it" if failed else "",
        protected=row.protected,
        deletion_policy=row.deletion_policy,
        adopted=row.adopted,
        published=row.published,
        unused_until=row.grace_until,
        uses=tuple(
            Use(
                consumer_name(use.application_name, use.workload.name),
                use.alias,
                use.since,
            )
            for use in row.uses
        ),
        dependents=tuple(
            sorted(
                view.address(edge.source.key, edge.source.environment_id)
                for edge in row.dependents.all()
                if edge.source.state != ResourceState.DELETED
            )
        ),
    )
