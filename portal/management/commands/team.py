from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from portal.management.base import ConductorCommand
from provisioning.models import Role
from provisioning.services.organisation import create_team
from provisioning.services.people import user_named


class Command(ConductorCommand):
    help = "Create a team, or list those there are."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        create = actions.add_parser("create", help="create a team with its people")
        create.add_argument("name", metavar="NAME")
        create.add_argument("--owner", metavar="USER", action="append", default=[])
        create.add_argument("--member", metavar="USER", action="append", default=[])
        self.add_actor(create)
        listing = actions.add_parser("list", help="list the teams")
        self.add_format(listing)
        for each in (create, listing):
            self.add_organisation(each)

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        organisation = self.organisation(options)
        if action == "create":
            row = create_team(
                organisation=organisation,
                name=options["name"],
                owners=[user_named(name) for name in options["owner"]],
                members=[user_named(name) for name in options["member"]],
                actor=self.actor(options),
            )
            self.stdout.write(f"Created the team {row.name} in {organisation.name}.")
            return
        rows = []
        for team in organisation.teams.order_by("name").prefetch_related("memberships__user"):
            people: dict[str, list[str]] = {Role.OWNER: [], Role.MEMBER: []}
            for membership in team.memberships.all():
                people[membership.role].append(membership.user.get_username())
            rows.append((team.name, sorted(people[Role.OWNER]), sorted(people[Role.MEMBER])))
        self.print_rows(options, ["name", "owners", "members"], rows)
