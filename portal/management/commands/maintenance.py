from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from portal.management.base import ConductorCommand
from provisioning.services.maintenance import (
    begin_maintenance,
    end_maintenance,
    list_maintenance,
)


class Command(ConductorCommand):
    """Let workers end what they run and begin nothing new, for a time."""

    help = "Begin or end maintenance, everywhere or in one environment, or list where it is on."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        on = actions.add_parser("on", help="let nothing new begin")
        on.add_argument("--reason", default="", help="shown to everybody who deploys there")
        off = actions.add_parser("off", help="let work go on")
        for each in (on, off):
            each.add_argument(
                "--env", "--environment", metavar="ENVIRONMENT", help="default: everywhere"
            )
            self.add_organisation(each)
            self.add_actor(each)
        listing = actions.add_parser("list", help="show where maintenance is on")
        self.add_actor(listing)
        self.add_format(listing)

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        actor = self.actor(options)
        if action == "list":
            self.print_rows(
                options,
                ["environment", "since", "reason", "by"],
                [
                    (
                        mode.environment.name if mode.environment else "",
                        f"{mode.since:%Y-%m-%d %H:%M} UTC",
                        mode.reason,
                        mode.begun_by,
                    )
                    for mode in list_maintenance(actor=actor)
                ],
            )
            return
        environment = None
        if options["env"]:
            environment = self.environment(self.organisation(options), options["env"])
        if action == "on":
            mode = begin_maintenance(environment=environment, reason=options["reason"], actor=actor)
            self.stdout.write(f"{mode} Workers end what they run, and begin nothing new.")
        else:
            end_maintenance(environment=environment, actor=actor)
            self.stdout.write("Maintenance is over: workers go on.")
