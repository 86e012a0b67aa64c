"""Who uses what, worked out beside Conductor from what everybody said they did.

What was done is the diary's; Conductor is believed only in which order it decided, and which
resources it made for a deployment. Every look at it has to be as the model then is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from provisioning.models import AuditEvent, Resource, ResourceConsumer, Step
from tests.faults.diary import Diary

DECISIONS = ("deployment.running", "consumer.revoked")
"""The events of all that changes who uses what; they are written one after the other."""
Person = tuple[str, str]
"""(application, alias)."""


def last_decision() -> int:
    """Return the number of the newest decision that the current transaction sees."""
    seen = AuditEvent.objects.filter(action__in=DECISIONS).order_by("-pk")
    return seen.values_list("pk", flat=True).first() or 0


def stored_uses() -> list[list[Any]]:
    """List who is said to use what, with the wanted size and the resource's."""
    rows = ResourceConsumer.objects.filter(state="active").values_list(
        "workload__application__name",
        "alias",
        "resource",
        "params__size",
        "resource__params__size",
    )
    return sorted([application, alias, str(pk), *sizes] for application, alias, pk, *sizes in rows)


def key_of(application: str, alias: str) -> str:
    """Return the key of what an alias names: a shared resource, or the application's own."""
    return f"private/{application}/web/own/box.default" if alias == "own" else f"shared/{alias}"


@dataclass
class Model:
    """Who uses what after some of the decisions."""

    diary: Diary
    uses: dict[Person, str] = field(default_factory=dict)
    wishes: dict[Person, int | None] = field(default_factory=dict)
    sizes: dict[str, int | None] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    newest: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        said = self.diary.entries
        self._asked = {str(each["deployment"]): each for each in said("deploy", "teardown")}
        self._forced = {str(each["deployment"]): each["resource"] for each in said("force")}
        self._revoked = {str(each["consumer"]): each for each in said("revoke")}
        self._approved = {(str(e["deployment"]), e["resource"]) for e in said("approve")}
        self._made: dict[str, dict[str, str]] = defaultdict(dict)
        rows = AuditEvent.objects.filter(action="resource.provisioning", old_status="")
        for deployment, key, pk in rows.values_list("deployment_id", "subject", "subject_id"):
            self._made[deployment][key] = pk
        self._destroyed: dict[str, list[str]] = defaultdict(list)
        steps = Step.objects.filter(deployment__kind="maintenance", action="destroy")
        for number, resource in steps.values_list("deployment", "resource"):
            self._destroyed[str(number)].append(str(resource))

    def check_all(self) -> None:
        """Follow the decisions, and compare each look with what has been decided until then."""
        looks = sorted(self.diary.entries("look"), key=lambda each: int(each["seen"]))
        waiting = iter([*looks, None])
        look = next(waiting)
        for pk, action, subject in _decisions():
            while look is not None and look["seen"] < pk:
                self._compare(look)
                look = next(waiting)
            if action == "consumer.revoked":
                self._revoke(self._revoked[subject])
            elif subject in self._asked:
                self._start(subject, self._asked[subject])
            else:
                self._destroy(subject)
        while look is not None:
            self._compare(look)
            look = next(waiting)

    def check_now(self) -> None:
        """Compare what is stored, when all work is done, with the model after all decisions."""
        assert stored_uses() == self._listed()
        live = Resource.objects.exclude(state="deleted").values_list("pk", flat=True)
        assert sorted(map(str, live)) == sorted(set(self.uses.values()))

    def _compare(self, look: dict[str, Any]) -> None:
        said, here = look["uses"], self._listed()
        missing, more = [u for u in here if u not in said], [u for u in said if u not in here]
        assert not missing, f"{look['seen']}: not stored: {missing}; instead: {more}"
        assert not more, f"{look['seen']}: stored, although nobody asked: {more}"
        for alias, resource in look["got"].items():
            assert self.uses.get((look["application"], alias)) == resource, look

    def _listed(self) -> list[list[Any]]:
        return sorted(
            [*person, resource, self.wishes[person], self.sizes[resource]]
            for person, resource in self.uses.items()
        )

    def _start(self, deployment: str, asked: dict[str, Any]) -> None:
        """Let an application use what its file wants, and nothing else any more."""
        application, wanted = asked["application"], asked["wanted"]
        before = {alias: pk for (one, alias), pk in self.uses.items() if one == application}
        for alias in before:
            self._leave((application, alias))
        for alias, size in wanted.items():
            pk = self._made_or_found(deployment, application, alias)
            if before.get(alias) != pk:
                self._check_allowed(deployment, application, pk, f"uses {alias}")
            self.uses[application, alias], self.wishes[application, alias] = pk, size
        now = {self.uses[application, alias] for alias in wanted}
        for pk in set(before.values()) - now:  # leaving is allowed, whatever shrinks
            self.sizes[pk] = self._largest(pk)
        for alias in wanted:
            pk = self.uses[application, alias]
            old, self.sizes[pk] = self.sizes.get(pk), self._largest(pk)
            if old not in (None, self.sizes[pk]):
                self._check_allowed(deployment, application, pk, f"changed {alias} from {old}")

    def _made_or_found(self, deployment: str, application: str, alias: str) -> str:
        key = key_of(application, alias)
        made = self._made[deployment].get(key)
        if made is not None:
            assert not self._users(self.newest.get(key, "")), f"{key} was made twice"
            self.newest[key], self.owners[made] = made, application
        return self.newest[key]

    def _check_allowed(self, deployment: str, application: str, pk: str, does: str) -> None:
        if self.owners[pk] != application:
            assert (deployment, pk) in self._approved, f"{application} {does}, unapproved"

    def _revoke(self, entry: dict[str, Any]) -> None:
        assert self._leave((entry["application"], entry["alias"])) == entry["resource"]

    def _destroy(self, deployment: str) -> None:
        chosen = self._forced.get(deployment)
        assert chosen is None or chosen in self._destroyed[deployment]
        for resource in self._destroyed[deployment]:
            users = self._users(resource)
            assert resource == chosen or not users, f"{resource} was to go under {users}"
            for person in users:
                self._leave(person)

    def _leave(self, person: Person) -> str:
        del self.wishes[person]
        return self.uses.pop(person)

    def _users(self, resource: str) -> list[Person]:
        return [person for person, used in self.uses.items() if used == resource]

    def _largest(self, resource: str) -> int | None:
        sizes = [self.wishes[person] for person in self._users(resource)]
        return max((size for size in sizes if size is not None), default=None)


def _decisions() -> Iterator[tuple[int, str, str]]:
    rows = AuditEvent.objects.filter(action__in=DECISIONS).order_by("pk")
    yield from rows.values_list("pk", "action", "subject_id")
