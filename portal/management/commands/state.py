from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import CommandParser

from portal.management.base import ConductorCommand
from provisioning.models import Resource
from provisioning.planning.maintenance import short_name
from provisioning.services.resources.find import find_past_resources
from provisioning.services.state import locks, versions


class Command(ConductorCommand):
    """Look at the stored states of a resource, and restore one."""

    help = "List, show, pull, restore or accept the states of a resource; for its owners."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        for action, text in {
            "list": "list the stored versions, and where the state is kept",
            "show": "name what a version holds, without any value",
            "pull": "print a whole state, secrets in clear; this is recorded",
            "restore": "make an older version the newest one",
            "accept": "take the external state that is there now for the right one",
        }.items():
            each = actions.add_parser(action, help=text)
            each.add_argument("name", metavar="RESOURCE", help="its shared name, key, name or id")
            if action in ("show", "pull", "restore"):
                optional = "?" if action != "restore" else None
                each.add_argument("number", metavar="NUMBER", type=int, nargs=optional)
            each.add_argument("--env", required=True, metavar="ENVIRONMENT")
            if action in ("restore", "accept"):
                each.add_argument("--reason", required=True, help="why; it is kept")
            if action in ("list", "show"):
                self.add_format(each)
            self.add_organisation(each)
            self.add_actor(each)

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        environment = self.environment(self.organisation(options), options["env"])
        actor = self.actor(options)
        found = find_past_resources(environment=environment, name=options["name"], actor=actor)
        getattr(self, f"_{action}")(found[-1], actor, options)

    def _list(self, resource: Resource, actor: User, options: dict[str, Any]) -> None:
        rows = [
            (
                each.number,
                "" if each.serial is None else each.serial,
                each.lineage,
                each.size,
                each.created_at.isoformat(timespec="seconds"),
                each.step.deployment_id if each.step else "",
                each.stored_by,
            )
            for each in versions.list_versions(resource=resource, actor=actor)
        ]
        if options["format"] == "text":
            lock = locks.live_lock(resource.pk)
            held = f"; locked by {locks.holder_of(lock)}" if lock else ""
            place = (
                f"{resource.state_backend or 'managed'}, {resource.state_location or 'nowhere yet'}"
            )
            self.stdout.write(f"{short_name(resource.key)}: {place}{held}")
        names = ["number", "serial", "lineage", "size", "stored_at", "deployment", "stored_by"]
        self.print_rows(options, names, rows)

    def _show(self, resource: Resource, actor: User, options: dict[str, Any]) -> None:
        version, contents = versions.show_version(
            resource=resource, number=options["number"], actor=actor
        )
        if options["format"] == "json":
            self.print_json(
                {
                    "number": version.number,
                    "serial": version.serial,
                    "lineage": version.lineage,
                    "resources": contents.resources,
                    "outputs": contents.outputs,
                    "sensitive": contents.sensitive,
                }
            )
            return
        self.stdout.write(f"Version {version.number}, serial {version.serial}")
        for address in contents.resources:
            self.stdout.write(f"  {address}")
        for name in contents.outputs:
            hidden = " (sensitive)" if name in contents.sensitive else ""
            self.stdout.write(f"  output {name}{hidden}")

    def _pull(self, resource: Resource, actor: User, options: dict[str, Any]) -> None:
        state = versions.pull_state(resource=resource, number=options["number"], actor=actor)
        self.stdout.write(state.decode("utf-8", "replace"))

    def _restore(self, resource: Resource, actor: User, options: dict[str, Any]) -> None:
        version = versions.restore_version(
            resource=resource, number=options["number"], reason=options["reason"], actor=actor
        )
        self.stdout.write(
            f"Version {options['number']} of the state of {short_name(resource.key)} is the newest "
            f"again, as version {version.number}. The next deployment runs its driver."
        )

    def _accept(self, resource: Resource, actor: User, options: dict[str, Any]) -> None:
        versions.accept_state(resource=resource, reason=options["reason"], actor=actor)
        self.stdout.write(
            f"The next deployment takes the state at {resource.state_location} as it is."
        )
