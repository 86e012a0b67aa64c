from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import CommandParser

from portal.management.base import ConductorCommand, named
from provisioning.models import ResourceTemplate
from provisioning.services.limits import list_limits, set_limit


class Command(ConductorCommand):
    """Limit how many steps run at once in an environment, or of a template."""

    help = (
        "Limit how many steps run at once in an environment or of a template, or list the limits."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        for noun in ("environment", "template"):
            limit = actions.add_parser(noun, help=f"limit what runs at once for one {noun}")
            limit.add_argument("name", metavar="NAME")
            limit.add_argument(
                "most", type=_count, metavar="COUNT", help="how many steps; none: no limit"
            )
            self.add_organisation(limit)
            self.add_actor(limit)
        listing = actions.add_parser("list", help="show the limits, and how many steps run now")
        self.add_organisation(listing)
        self.add_format(listing)

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        organisation = self.organisation(options)
        if action == "list":
            self.print_rows(
                options,
                ["of", "name", "limit", "running"],
                [
                    (each.noun, each.name, each.most, each.running)
                    for each in list_limits(organisation=organisation)
                ],
            )
            return
        if action == "environment":
            self._limit(self.environment(organisation, options["name"]), options)
        else:
            templates = ResourceTemplate.objects.filter(organisation=organisation)
            self._limit(named(templates, options["name"]), options)

    def _limit(self, limited: Any, options: dict[str, Any]) -> None:
        row = set_limit(limited=limited, max_concurrent=options["most"], actor=self.actor(options))
        most = "Any number" if row.max_concurrent is None else f"At most {row.max_concurrent}"
        self.stdout.write(f"{most} of the steps of {row.name} run at once.")


def _count(text: str) -> int | None:
    """Read a whole number or `none`, for argparse."""
    if text == "none":
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is neither a whole number nor none.") from None
