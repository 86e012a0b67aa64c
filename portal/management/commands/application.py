from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from portal.management.base import ConductorCommand
from provisioning.services.organisation import create_application


class Command(ConductorCommand):
    help = "Create an application, or list those there are."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        create = actions.add_parser("create", help="create an application of a team")
        create.add_argument("name", metavar="NAME")
        create.add_argument("--team", metavar="TEAM", required=True)
        self.add_actor(create)
        listing = actions.add_parser("list", help="list the applications")
        self.add_format(listing)
        for each in (create, listing):
            self.add_organisation(each)

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        organisation = self.organisation(options)
        if action == "create":
            team = self.team(organisation, options["team"])
            row = create_application(team=team, name=options["name"], actor=self.actor(options))
            self.stdout.write(f"Created the application {row.name} of the team {team.name}.")
            return
        rows = organisation.applications.order_by("name").select_related("team")
        self.print_rows(options, ["name", "team"], [(row.name, row.team.name) for row in rows])
