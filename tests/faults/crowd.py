"""People of many applications who use what others own, each step at random, all at once."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User
from django.db import connection, transaction

from provisioning.models import (
    Approval,
    Deployment,
    Resource,
    ResourceConsumer,
)
from provisioning.planning.maintenance import HeldResourceError
from provisioning.planning.plan import PlanError
from provisioning.services.approvals import AlreadyDecidedError, approve, reject, withdraw
from provisioning.services.deployments.submit import (
    NotConfirmableError,
    confirm_deployment,
    submit_teardown,
)
from provisioning.services.outputs import resolved_outputs
from provisioning.services.resources.destroy import destroy_resource
from provisioning.services.sharing import SharingError, revoke
from provisioning.workers.tasks import work
from tests.faults.diary import Diary
from tests.faults.model import key_of, last_decision, stored_uses
from tests.provisioning.place import QUEUE, Place, chores

APPLICATIONS = [f"app-{number}" for number in range(8)]
NAMES = ("red", "green", "blue")
OWN = "own"
REFUSALS = (AlreadyDecidedError, HeldResourceError, NotConfirmableError, PlanError, SharingError)
"""What somebody who comes too late, or asks for what is held, is told; anything else is a defect."""


class BrokenInvariantError(AssertionError):
    """Say which invariant did not hold while everybody was still at it."""


def wishes(names: list[str], size: int, own: bool) -> str:
    """Return a `resources:` block that asks for shared names, and for one that uses the first."""
    text = "".join(
        f"  {name}:\n    type: cache\n    reference: {{mode: shared, name: {name}}}\n"
        f"    params: {{size: {size}}}\n"
        for name in names
    )
    if own:
        of = f"${{resources.{names[0]}.host}}" if names else "nothing"
        text += f"  {OWN}:\n    type: box\n    params: {{of: '{of}'}}\n"
    return text or "  {}\n"


@dataclass
class Somebody:
    """One process: whoever's turn it is does something at random, and looks at what it got."""

    place: Place
    diary: Diary
    ledger: Path
    chance: random.Random
    tasks: dict[str, int] = field(
        default_factory=lambda: {
            "deploy": 34,
            "teardown": 8,
            "approve": 24,
            "reject": 6,
            "withdraw": 2,
            "confirm": 6,
            "revoke": 8,
            "destroy": 5,
            "force": 4,
            "sweep": 3,
        }
    )

    def live(self, steps: int) -> None:
        """Do so many things."""
        for _ in range(steps):
            (task,) = self.chance.choices(list(self.tasks), list(self.tasks.values()))
            self.do(task)
            if self.chance.random() < 0.7:
                work(QUEUE)
            self.look()

    def do(self, task: str) -> None:
        """Do one thing and note it, with the refusal if there was one."""
        act: Callable[[], dict[str, Any] | None] = getattr(self, task)
        try:
            told = act()
        except REFUSALS as error:
            told = {"refused": f"{type(error).__name__}: {error}"}
        if told is not None:
            self.diary.note(did=task, **told)

    def deploy(self) -> dict[str, Any]:
        """Join, update or leave: whatever the new file says is not as before."""
        application = self.chance.choice(APPLICATIONS)
        names = self.chance.sample(NAMES, self.chance.randint(0, len(NAMES)))
        own = self.chance.random() < 0.5
        size = self.chance.randint(1, 3)
        deployment = self.place.submit(
            wishes(names, size, own), application=application, actor=person(application)
        )
        wanted = dict.fromkeys(names, size) | ({OWN: None} if own else {})
        return {"deployment": deployment.pk, "application": application, "wanted": wanted}

    def teardown(self) -> dict[str, Any]:
        application = self.chance.choice(APPLICATIONS)
        deployment = submit_teardown(
            application=self.place.application(application),
            environment=self.place.environment,
            workloads=None,
            actor=person(application),
        )
        return {"deployment": deployment.pk, "application": application, "wanted": {}}

    def approve(self) -> dict[str, Any] | None:
        return self._decide(lambda each, actor: approve(approval=each, actor=actor))

    def reject(self) -> dict[str, Any] | None:
        return self._decide(lambda each, actor: reject(approval=each, actor=actor, comment="No."))

    def withdraw(self) -> dict[str, Any] | None:
        return self._decide(
            lambda each, _: withdraw(approval=each, actor=person(str(each.deployment.application)))
        )

    def confirm(self) -> dict[str, Any] | None:
        deployment = self._any(
            Deployment.objects.filter(status="pending_confirmation", application__isnull=False)
        )
        if deployment is None or deployment.application is None:
            return None
        confirm_deployment(deployment=deployment, actor=person(deployment.application.name))
        return {"deployment": deployment.pk}

    def revoke(self) -> dict[str, Any] | None:
        rows = ResourceConsumer.objects.filter(state="active", mode="shared")
        consumer = self._any(rows.select_related("resource__owner_team", "workload__application"))
        if consumer is None:
            return None
        revoke(consumer=consumer, reason="Enough.", actor=owner_of(consumer.resource))
        return _use(consumer) | {"consumer": consumer.pk}

    def destroy(self) -> dict[str, Any] | None:
        return self._destroy(force=False)

    def force(self) -> dict[str, Any] | None:
        return self._destroy(force=True)

    def sweep(self) -> dict[str, Any]:
        chores()
        return {}

    def look(self) -> None:
        """See what somebody's workload gets now, and whether what was destroyed is used."""
        destroyed = [
            line.split()[1]
            for line in self.ledger.read_text().splitlines()
            if line.startswith("destroy")
        ]
        used = ResourceConsumer.objects.filter(state="active")
        if used.filter(resource__state="deleted").exists():
            raise BrokenInvariantError("A deleted resource has an active consumer.")
        if found := list(
            used.filter(resource__in=destroyed).values_list("resource", "resource__state")
        ):
            raise BrokenInvariantError(f"Destroyed by the driver, and used: {found}")
        self.diary.note(did="look", **self._see(self.chance.choice(APPLICATIONS)))

    def _see(self, application: str) -> dict[str, Any]:
        """Return what an application gets, as the resource behind each alias that gives any output.

        With it goes who uses what, and the last decision that this has come from: all of one moment.
        """
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            given = resolved_outputs(
                application=self.place.application(application),
                environment=self.place.environment,
                actor=None,
            )
            live = Resource.objects.exclude(state="deleted")
            ids = {key: str(pk) for key, pk in live.values_list("key", "pk")}
            got = {
                alias: ids[key_of(application, alias)]
                for aliases in given.values()
                for alias, values in aliases.items()
                if values
            }
            return {
                "application": application,
                "got": got,
                "uses": stored_uses(),
                "seen": last_decision(),
            }

    def _destroy(self, *, force: bool) -> dict[str, Any] | None:
        resource = self._any(
            Resource.objects.exclude(state="deleted").select_related("owner_team", "environment")
        )
        if resource is None:
            return None
        deployment = destroy_resource(
            resource=resource, actor=owner_of(resource), force=force, reason="We want it gone."
        )
        return {"deployment": deployment.pk, "resource": str(resource.pk)}

    def _decide(self, decide: Callable[[Approval, User], Deployment]) -> dict[str, Any] | None:
        rows = Approval.objects.filter(status="pending")
        approval = self._any(
            rows.select_related("deployment__application", "deployment__environment", "team")
        )
        if approval is None:
            return None
        deployment = decide(approval, person(approval.team.name.removesuffix("-team")))
        return {
            "approval": approval.pk,
            "deployment": deployment.pk,
            "application": approval.deployment.application.name,
            "resource": str(approval.resource_id),
        }

    def _any(self, rows: Any) -> Any:
        found = list(rows.order_by("pk"))
        return self.chance.choice(found) if found else None


def person(application: str) -> User:
    """Return the owner of an application's team."""
    return User.objects.get(username=f"owner-of-{application}")


def owner_of(resource: Resource) -> User:
    """Return somebody who decides about a resource."""
    return person(resource.owner_team.name.removesuffix("-team"))


def populate(place: Place) -> None:
    """Store the applications, each with a team of its own that has one owner."""
    place.team = ""
    for application in APPLICATIONS:
        user = User.objects.create_user(f"owner-of-{application}")
        place.team_named(f"{application}-team", user)
        place.application(application)


def _use(consumer: ResourceConsumer) -> dict[str, str]:
    return {
        "application": consumer.workload.application.name,
        "resource": str(consumer.resource_id),
        "alias": consumer.alias,
    }
