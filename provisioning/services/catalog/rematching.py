"""Which live requirements another catalogue would serve with another template than this one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from provisioning.exceptions import ConductorError
from provisioning.models import ConsumerMode, ConsumerState, Organisation, ResourceConsumer
from provisioning.planning.facts import Snapshot
from provisioning.planning.matching import Matcher
from provisioning.snapshot import read_rules, read_templates

Place = tuple[str, str, str, str]
"""(environment, application, workload, alias) of a live requirement."""
MOST_NAMED = 20


@dataclass(frozen=True, slots=True, order=True)
class Rematch:
    """A live requirement with the template that served it and the one that would; "" is none."""

    environment: str
    application: str
    workload: str
    alias: str
    type: str
    before: str
    after: str

    def __str__(self) -> str:
        """Tell it in a line."""
        return (
            f"{self.environment}: {self.application}/{self.workload} `{self.alias}` ({self.type}) "
            f"is served by {self.before or 'no template'}, and would be by "
            f"{self.after or 'no template'}"
        )


class RematchError(ConductorError):
    """Refuse a change of the catalogue that would match live requirements differently."""

    def __init__(self, rematches: Sequence[Rematch]) -> None:
        self.rematches = list(rematches)
        lines = [f"  {each}" for each in self.rematches[:MOST_NAMED]]
        if more := len(self.rematches) - len(lines):
            lines.append(f"  and {more} more")
        plural = "" if len(self.rematches) == 1 else "s"
        head = (
            f"{len(self.rematches)} live requirement{plural} would match differently if made anew. "
            "Nothing was changed; it has to be forced (--force, or the box Force)."
        )
        super().__init__("\n".join([head, *lines]))


@contextmanager
def guarded(organisation: Organisation, *, force: bool) -> Iterator[None]:
    """Let the block change the catalogue inside a transaction.

    Raises RematchError, so that the transaction is rolled back, if live requirements would match
    differently afterwards and nobody forces it. What lives keeps its template in any case.
    """
    before = {} if force else _served(organisation)
    yield
    if force:
        return
    after = _served(organisation)
    rematches = [
        Rematch(*place, type_, template, after[place][1])
        for place, (type_, template) in sorted(before.items())
        if place in after and after[place][1] != template
    ]
    if rematches:
        raise RematchError(rematches)


def _served(organisation: Organisation) -> dict[Place, tuple[str, str]]:
    """Map every live requirement to its type and class and the template that serves it now."""
    rules, templates = read_rules(organisation.pk), read_templates(organisation.pk)
    matchers: dict[tuple[str, str], Matcher] = {}
    served: dict[Place, tuple[str, str]] = {}
    for consumer in _live(organisation):
        environment, application = consumer.workload.environment, consumer.workload.application
        at = (environment.name, application.name)
        if at not in matchers:
            matchers[at] = Matcher(
                Snapshot(
                    organisation=organisation.name,
                    application=application.name,
                    team="",
                    environment=environment.name,
                    environment_kind=environment.kind,
                    templates=templates,
                    rules=rules,
                )
            )
        type_, class_ = consumer.resource.type, consumer.resource.class_name
        version = matchers[at].match(type_, class_, _score_id(consumer)).version
        place = (*at, consumer.workload.name, consumer.alias)
        served[place] = (f"{type_}.{class_}", version.template if version else "")
    return served


def _live(organisation: Organisation) -> Iterator[ResourceConsumer]:
    consumers = (
        ResourceConsumer.objects.filter(
            state=ConsumerState.ACTIVE, workload__environment__organisation=organisation
        )
        .exclude(mode=ConsumerMode.EXISTING)
        .select_related("resource", "workload__application", "workload__environment")
    )
    yield from consumers.order_by("pk")


def _score_id(consumer: ResourceConsumer) -> str:
    """Return the Score id of the declaration; a uid without one ends in its workload and alias."""
    id_ = consumer.resource.uid.partition("#")[2]
    context: Mapping[str, str] = consumer.resource.context
    return "" if id_.startswith(f"{context.get('workload', '')}.") else id_
