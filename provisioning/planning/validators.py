"""What templates demand of the resources that serve what they require: their validators.

A need's consumer has the alias path of what brought it (`users/primary-database`), so the template
of the consumer `users` says what is demanded. What the merged params tell is refused in the plan;
what only outputs tell is left for the step of the resource that demands it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from provisioning.planning.checks import OUTPUTS, PARAMS, WISH, Check, Facts, checks_of, facts_of
from provisioning.planning.conditions import UNKNOWN
from provisioning.planning.facts import ConsumerFacts, Snapshot, VersionFacts
from provisioning.planning.merging import Wish
from provisioning.planning.needs import Need
from provisioning.planning.requirements import Requirement
from provisioning.score.workload import Problem

if TYPE_CHECKING:
    from provisioning.planning.desired import Desired

Place: TypeAlias = tuple[str, str, str]
"""An application, a workload and an alias."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What one consumer's template demands of the resource that serves one of its requirements."""

    component: VersionFacts
    component_key: str
    need: str
    place: Place
    wish: Mapping[str, Any] | None
    checks: Sequence[Check]

    def facts(self, version: VersionFacts, params: Mapping[str, Any]) -> Facts:
        """Return what is known when planning: all but the outputs."""
        named = {name for check in self.checks for name in check.condition.names(OUTPUTS)}
        outputs = dict.fromkeys(named, UNKNOWN)
        return facts_of(version, wish=self.wish, params=params, outputs=outputs)


class Demands:
    """Find what is demanded for consumers, given where each alias is bound."""

    def __init__(
        self, keys: Mapping[Place, str], version_of: Callable[[str], VersionFacts | None]
    ) -> None:
        self._keys = keys
        self._version_of = version_of
        self._checks: dict[tuple[int, str], list[Check]] = {}

    def of(self, place: Place, wish: Mapping[str, Any] | None) -> Demand | None:
        """Return what is demanded for one consumer, or None."""
        application, workload, alias = place
        above, _, need = alias.rpartition("/")
        key = self._keys.get((application, workload, above)) if above else None
        version = self._version_of(key) if key else None
        if key is None or version is None:
            return None
        if (version.id, need) not in self._checks:
            self._checks[version.id, need] = validators_of(version).get(need, [])
        checks = self._checks[version.id, need]
        return Demand(version, key, need, place, wish, checks) if checks else None


def validators_of(version: VersionFacts) -> dict[str, list[Check]]:
    """Return the validators of a version's requirements by their keys."""
    needs = (Need.of(each, required=True) for each in version.requirements)
    return {need.key: checks_of(need.validators) for need in needs if need.validators}


def demands_after(
    requirements: Iterable[Requirement],
    staying: Iterable[ConsumerFacts],
    desired: Mapping[str, Desired],
    snapshot: Snapshot,
) -> Demands:
    """Return what will be demanded once a plan has been carried out."""
    keys = {place_of(each): each.key for each in staying}
    keys |= {place_of(each, snapshot.application): each.key for each in requirements}

    def version_of(key: str) -> VersionFacts | None:
        now = desired.get(key) or snapshot.resources.get(key)
        return now.version if now else None

    return Demands(keys, version_of)


def place_of(consumer: ConsumerFacts | Requirement, application: str = "") -> Place:
    """Return the place of a consumer, or of a requirement of the application."""
    if isinstance(consumer, Requirement):
        return application, consumer.workload.name, consumer.declaration.alias
    return consumer.application, consumer.workload, consumer.alias


def suits(
    version: VersionFacts,
    params: Mapping[str, Any],
    consumers: Iterable[ConsumerFacts],
    snapshot: Snapshot,
) -> bool:
    """Tell whether a resource with these params suits what is demanded of it for its consumers."""
    consumers = [each for each in consumers if "/" in each.alias]
    if not consumers:
        return True
    demands = demands_after((), snapshot.consumers, {}, snapshot)
    for each in consumers:
        demand = demands.of(place_of(each), each.params)
        if demand and any(demand.facts(version, params).broken(demand.checks)):
            return False
    return True


def validator_problems(
    requirements: Sequence[Requirement],
    staying: Mapping[str, Sequence[ConsumerFacts]],
    desired: Mapping[str, Desired],
    demands: Demands,
    snapshot: Snapshot,
) -> Iterator[Problem]:
    """Check that every settled resource suits what is demanded of it; `staying` are by key."""
    asked: dict[str, list[Requirement]] = defaultdict(list)
    for each in requirements:
        asked[each.key].append(each)
    for key, now in desired.items():
        own = {place_of(each, snapshot.application): each for each in asked[key]}
        wishes = {place: each.params for place, each in own.items()}
        wishes |= {place_of(each): each.params for each in staying.get(key, ())}
        found = [demands.of(place, wishes[place]) for place in sorted(wishes)]
        made = [demand for demand in found if demand is not None]
        unknown = [
            problem
            for demand in made
            if demand.place in own
            for problem in _unknown_names(demand, now.version, own[demand.place])
        ]
        yield from unknown or _unsuitable(made, now, own)


def unsuitable(
    key: str, component: VersionFacts, need: str, consumers: Iterable[str], sentence: str
) -> str:
    """Say that a resource does not suit what a template requires, for which consumers, and why."""
    return (
        f"{key} does not suit what {component.template} {component.version} requires as `{need}` for "
        f"{', '.join(consumers)}: {sentence}"
    )


def _demander(place: Place) -> str:
    application, workload, alias = place
    return str(Wish(application, workload, alias.rpartition("/")[0], None).consumer)


def _unsuitable(
    demands: Iterable[Demand], now: Desired, own: Mapping[Place, Requirement]
) -> Iterator[Problem]:
    groups: dict[tuple[str, ...], list[tuple[Demand, Check]]] = defaultdict(list)
    for demand in demands:
        facts = demand.facts(now.version, now.params)
        for check in facts.broken(demand.checks):
            component = demand.component
            alike = (component.template, component.version, demand.need, facts.sentence(check))
            groups[alike].append((demand, check))
    for (*_, sentence), group in groups.items():
        first, check = group[0]
        names = dict.fromkeys(_demander(demand.place) for demand, _ in group)
        mine = [own[demand.place] for demand, _ in group if demand.place in own]
        decided = "".join(
            f" {name} is decided by {', '.join(now.decided_by[name])}."
            for name in sorted(check.condition.names(PARAMS) & now.decided_by.keys())
        )
        for requirement in (mine or list(own.values()))[:1]:
            yield requirement.problem(
                unsuitable(now.key, first.component, first.need, names, sentence) + decided,
                hint="ask for what it needs, or use another `id` or name for a resource of your own",
            )


def _unknown_names(
    demand: Demand, version: VersionFacts, requirement: Requirement
) -> Iterator[Problem]:
    """Refuse validators that name what the template which serves the need does not have."""
    schema, component = version.params_schema, demand.component
    properties = schema.get("properties", {})
    secret = {name for name, said in properties.items() if _is_secret(said)}
    for check in demand.checks:
        outputs, params = check.condition.names(OUTPUTS), check.condition.names(PARAMS)
        known = outputs if "*" in version.outputs else version.outputs.keys()
        taken = params if schema.get("additionalProperties", True) else properties.keys()
        said = [f"the output {name}, which it does not declare" for name in sorted(outputs - known)]
        said += [f"the param {name}, which it does not have" for name in sorted(params - taken)]
        secrets = (params | check.condition.names(WISH)) & secret
        said += [f"the param {name}, which is sensitive" for name in sorted(secrets)]
        for what in said:
            yield requirement.problem(
                f"{component.template} {component.version} demands `{check.condition.text}` of "
                f"{version.template} {version.version}, and names {what}.",
                hint="correct the validator, or let another template serve it",
            )


def _is_secret(schema: Any) -> bool:
    return isinstance(schema, Mapping) and bool(schema.get("writeOnly"))
