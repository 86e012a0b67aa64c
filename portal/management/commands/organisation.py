from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from django.db.models import Count

from portal.management.base import ConductorCommand
from provisioning.models import Organisation
from provisioning.services.organisation import create_organisation


class Command(ConductorCommand):
    help = "Create an organisation, or list those there are."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        create = actions.add_parser("create", help="create an organisation")
        create.add_argument("name", metavar="NAME")
        self.add_actor(create)
        self.add_format(actions.add_parser("list", help="list the organisations"))

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        if action == "create":
            row = create_organisation(name=options["name"], actor=self.actor(options))
            self.stdout.write(f"Created the organisation {row.name}.")
            return
        rows = Organisation.objects.order_by("name").annotate(
            team_count=Count("teams", distinct=True),
            application_count=Count("applications", distinct=True),
            environment_count=Count("environments", distinct=True),
        )
        self.print_rows(
            options,
            ["name", "teams", "applications", "environments"],
            [
                (row.name, row.team_count, row.application_count, row.environment_count)
                for row in rows
            ],
        )
