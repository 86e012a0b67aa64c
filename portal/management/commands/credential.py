from __future__ import annotations

import getpass
import sys
from typing import Any

from django.core.management.base import CommandParser

from portal.management.base import ConductorCommand
from provisioning.services.credentials import remove_credential, set_credential


class Command(ConductorCommand):
    help = "Keep what the tools of an environment sign in with; values are never shown again."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        setting = actions.add_parser("set", help="keep a value, read from standard input")
        removing = actions.add_parser("remove", help="forget a credential")
        listing = actions.add_parser("list", help="list the names, not the values")
        for each in (setting, removing, listing):
            each.add_argument("environment", metavar="ENVIRONMENT")
            self.add_organisation(each)
        for each in (setting, removing):
            each.add_argument("name", metavar="VARIABLE")
            self.add_actor(each)
        setting.add_argument(
            "--from",
            dest="reference",
            default="",
            metavar="REFERENCE",
            help="keep no value: each worker finds it at env:NAME or file:PATH",
        )
        setting.add_argument(
            "--file",
            action="store_true",
            help="tools get a file with the value, and its path in the variable",
        )
        self.add_format(listing)

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        environment = self.environment(self.organisation(options), options["environment"])
        if action == "list":
            rows = environment.credentials.order_by("name")
            self.print_rows(
                options,
                ["name", "value", "file", "changed"],
                [
                    (row.name, row.reference or "encrypted", row.as_file, row.updated_at)
                    for row in rows
                ],
            )
            return
        name, actor = options["name"], self.actor(options)
        if action == "remove":
            remove_credential(environment=environment, name=name, actor=actor)
            self.stdout.write(f"{environment.name} has no credential {name} any more.")
            return
        set_credential(
            environment=environment,
            name=name,
            value="" if options["reference"] else _value(name),
            reference=options["reference"],
            as_file=options["file"],
            actor=actor,
        )
        self.stdout.write(f"Tools of {environment.name} get {name} from their next step on.")


def _value(name: str) -> str:
    if sys.stdin.isatty():
        return getpass.getpass(f"{name}: ")
    return sys.stdin.read().removesuffix("\n")
