from __future__ import annotations

from datetime import datetime
from typing import Any

from django.core.management.base import CommandParser

from portal.management.base import ConductorCommand
from provisioning.services.resources.shared import SharedResource, inspect_shared, list_shared


class Command(ConductorCommand):
    """Show the resources that several applications may use."""

    help = "List the shared resources, or show one with all who use it."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        listing = actions.add_parser("list", help="list the shared resources and their consumers")
        inspect = actions.add_parser("inspect", help="show one")
        inspect.add_argument("name", metavar="NAME", help="its shared name, key or id")
        for each in (listing, inspect):
            each.add_argument("--env", metavar="ENVIRONMENT", help="in this environment only")
            self.add_organisation(each)
            self.add_format(each)

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        organisation = self.organisation(options)
        environment = self.environment(organisation, options["env"]) if options["env"] else None
        if action == "list":
            self._list(list_shared(organisation=organisation, environment=environment), options)
            return
        found = inspect_shared(
            organisation=organisation, environment=environment, name=options["name"]
        )
        if options["format"] == "json":
            self.print_json(found.to_json())
        else:
            self._show(found)

    def _list(self, found: list[SharedResource], options: dict[str, Any]) -> None:
        if options["format"] == "json":
            self.print_json([each.to_json() for each in found])
            return
        if not found:
            self.stdout.write("No shared resources.")
            return
        rows = []
        for each in found:
            count = str(len(each.uses))
            since = f"{each.created_at:%Y-%m-%d}"
            rows.append((each.name, each.environment, each.owner, each.state, count, since))
            rows += [
                (f"  └─ {use.consumer}", "", "", "", "", f"{use.since:%Y-%m-%d}")
                for use in each.uses
            ]
        headers = ["NAME", "ENVIRONMENT", "OWNER", "STATE", "CONSUMERS", "SINCE"]
        self.print_table(headers, rows)

    def _show(self, found: SharedResource) -> None:
        state = f"{found.state} ({found.trouble})" if found.trouble else found.state
        policies = [
            word
            for word, holds in {
                "protected": found.protected,
                "retained": found.deletion_policy == "retain",
                "adopted": found.adopted,
                "published": found.published,
            }.items()
            if holds
        ]
        lines = {
            "Name": found.name,
            "Id": found.id,
            "Type": found.type,
            "Environment": found.environment,
            "State": state,
            "Owner": found.owner,
            "Created by": found.created_by or "no application",
            "Created at": _time(found.created_at),
            "Kept": ", ".join(policies) or "while it is used",
        }
        if found.unused_until:
            lines["Destroyed"] = f"after {_time(found.unused_until)}, unless somebody joins"
        for name, value in lines.items():
            self.stdout.write(f"{name + ':':<13}{value}")
        self.stdout.write(f"Consumers ({len(found.uses)}):")
        for use in found.uses:
            self.stdout.write(f"  - {use.consumer} as {use.alias} since {_time(use.since)}")
        if found.dependents:
            self.stdout.write(f"Needed by: {', '.join(found.dependents)}")


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"
