"""What a deployment asks for, and how its plan is made from it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from provisioning import snapshot
from provisioning.encryption import decrypt
from provisioning.exceptions import ConductorError
from provisioning.models import (
    Application,
    Deployment,
    DeploymentKind,
    Environment,
    Resource,
    ResourceState,
)
from provisioning.models.resources import LIVE_RESOURCE_STATES
from provisioning.planning.decide import decide, decide_teardown
from provisioning.planning.maintenance import (
    HeldResourceError,
    decide_destroy,
    decide_ensure,
    decide_roll_back,
)
from provisioning.planning.plan import Action, Plan
from provisioning.planning.pools import decide_fill
from provisioning.score.document import parse_application
from provisioning.score.workload import SCOPES, ResourceDeclaration, Workload, widest
from provisioning.snapshot.view import View

MOST_PLANS = 5


class ForeignEnvironmentError(ConductorError):
    """Refuse to deploy an application into another organisation's environment."""


class UnsteadyError(ConductorError):
    """Say that the environment changed faster than a plan could be made."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for: the workloads to be there, or the names of those to be removed."""

    workloads: Sequence[Workload] = ()
    names: Sequence[str] | None = None
    teardown: bool = False
    upgrade: bool = False
    shrink: bool = False
    destroy: str = ""
    """The key of a resource that maintenance destroys, with `forced` whatever holds it."""
    forced: bool = False
    ensure: str = ""
    """The key of a resource that maintenance brings about."""
    fill: str = ""
    """The pool for which maintenance makes the `members` with these keys."""
    members: Sequence[str] = ()
    roll_back: Sequence[str] = ()
    """The keys of what a deployment has created, and maintenance destroys if nothing holds it."""

    @classmethod
    def of(cls, deployment: Deployment) -> Request:
        """Read again what a stored deployment asks for."""
        if deployment.kind == DeploymentKind.TEARDOWN:
            return cls(names=tuple(deployment.workload_names), teardown=True)
        if deployment.kind == DeploymentKind.MAINTENANCE:
            planned = [resource["key"] for resource in deployment.plan["resources"]]
            if deployment.pool is not None:
                return cls(fill=deployment.pool.name, members=planned)
            if deployment.application is not None:
                return cls(roll_back=planned)
            resource = deployment.resource
            if resource is None or resource.state == ResourceState.DELETED:
                raise HeldResourceError("The resource is gone already.")
            if deployment.ensures:
                return cls(ensure=resource.key)
            return cls(destroy=resource.key, forced=deployment.forced)
        files = [(file, text) for file, text in json.loads(decrypt(deployment.score))]
        return cls(
            workloads=parse_application(files),
            upgrade=deployment.upgrade,
            shrink=deployment.shrink,
        )

    def plan(
        self, application: Application | None, environment: Environment, *, claiming: bool = False
    ) -> Plan:
        """Plan on a fresh snapshot; raise PlanError with every problem.

        Maintenance is of no application, unless it rolls one back, and raises HeldResourceError or UnknownPoolError.
        With `claiming`, the ready members of the pools that are asked for are locked.
        """
        if application is None or self.roll_back:
            facts = snapshot.take_environment(environment)
            if self.fill:
                return decide_fill(self.fill, self.members, facts)
            if self.ensure:
                return decide_ensure(self.ensure, facts)
            if self.roll_back:
                return decide_roll_back(self.roll_back, facts)
            return decide_destroy(self.destroy, facts, forced=self.forced)
        if application.organisation_id != environment.organisation_id:
            raise ForeignEnvironmentError(
                f"The environment {environment.name} belongs to another organisation than the "
                f"application {application.name}."
            )
        pools = self._pools() if claiming else set()
        facts = snapshot.take(application, environment, claiming=pools, searched=self._searched())
        if self.teardown:
            return decide_teardown(self.names, facts)
        return decide(self.workloads, facts, upgrade=self.upgrade, shrink=self.shrink)

    def plan_on_locked(
        self, application: Application | None, environment: Environment
    ) -> tuple[Plan, dict[str, Resource]]:
        """Plan on a fresh snapshot; return the plan and its existing resources, locked, by key.

        The environment must be locked, in the request's scope. A destroy that ends between the
        snapshot and the row locks makes the plan stale, so it is made again.
        """
        view = View(environment)
        for _ in range(MOST_PLANS):
            plan = self.plan(application, environment, claiming=True)
            named = _keys(plan)
            locked = {
                view.address(resource.key, resource.environment_id): resource
                for resource in Resource.objects.select_for_update(no_key=True)
                .filter(view.resources_at(named), state__in=LIVE_RESOURCE_STATES)
                .order_by("pk")
            }
            created = {each.key for each in plan.resources if each.action is Action.CREATE}
            if named <= locked.keys() | created:
                return plan, locked
        raise UnsteadyError(
            f"The resources of {environment.name} change faster than a plan can be made; try again."
        )

    @property
    def scope(self) -> str:
        """Return how far the workloads look for resources."""
        return widest(self._searched().values())

    def _searched(self) -> dict[tuple[str, str], str]:
        """Return, by type and class, how far beyond the environment the workloads look for one."""
        searched: dict[tuple[str, str], str] = {}
        for each in self._declarations():
            scope = each.binding.matching.scope if each.binding.matching else SCOPES[0]
            if scope != SCOPES[0]:
                kind = (each.type, each.class_)
                searched[kind] = widest((scope, searched.get(kind, scope)))
        return searched

    def _pools(self) -> set[str]:
        """Name the pools that the workloads ask for."""
        return {each.binding.pool for each in self._declarations() if each.binding.pool}

    def _declarations(self) -> Iterator[ResourceDeclaration]:
        return (each for workload in self.workloads for each in workload.resources.values())


def _keys(plan: Plan) -> set[str]:
    """Collect the keys of all resources that a plan names."""
    keys = {planned.key for planned in plan.resources} | {step.key for step in plan.steps}
    keys |= {release.key for release in plan.releases}
    return keys.union(*(planned.depends_on for planned in plan.resources))
