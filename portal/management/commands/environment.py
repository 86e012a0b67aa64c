from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from django.core.management.base import CommandParser

from portal.management.base import ConductorCommand, UsageError
from provisioning.models import Environment, EnvironmentKind
from provisioning.services.organisation import change_state_backend, create_environment


class Command(ConductorCommand):
    help = "Create an environment, change one, or list those there are."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        create = actions.add_parser("create", help="create an environment")
        create.add_argument("name", metavar="NAME")
        create.add_argument(
            "--kind", choices=EnvironmentKind.values, default=EnvironmentKind.DEVELOPMENT.value
        )
        create.add_argument(
            "--variable", metavar="K=V", action="append", default=[], help="a plain value"
        )
        create.add_argument("--tag", metavar="K=V", action="append", default=[])
        create.add_argument(
            "--defaults",
            metavar="JSON",
            default="{}",
            help='what resources get that nobody asks for: {"TYPE or *": {"PARAM": VALUE}}',
        )
        create.add_argument("--queue", default="default", help="whose workers take its steps")
        create.add_argument(
            "--protected", action="store_true", help="each deployment to it has to be approved"
        )
        change = actions.add_parser("change", help="change where new resources' states are kept")
        change.add_argument("name", metavar="NAME")
        for each in (create, change):
            each.add_argument(
                "--state-backend",
                metavar="JSON",
                required=each is change,
                help='where states are kept, without credentials: {"type": "s3", "bucket": …}',
            )
            self.add_actor(each)
        listing = actions.add_parser("list", help="list the environments")
        self.add_format(listing)
        for each in (create, change, listing):
            self.add_organisation(each)

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        organisation = self.organisation(options)
        given = options.get("state_backend")
        backend: Any = _json("--state-backend", given) if given else None
        if action == "change":
            row = self.environment(organisation, options["name"])
            change_state_backend(environment=row, backend=backend, actor=self.actor(options))
            self.stdout.write(f"New resources of {row.name} keep their states: {_kind(row)}.")
            return
        if action == "create":
            row = create_environment(
                organisation=organisation,
                name=options["name"],
                kind=options["kind"],
                variables=_pairs("--variable", options["variable"]),
                tags=_pairs("--tag", options["tag"]),
                defaults=_json("--defaults", options["defaults"]),
                queue=options["queue"],
                protected=options["protected"],
                state_backend=backend,
                actor=self.actor(options),
            )
            self.stdout.write(f"Created the {row.kind} environment {row.name}.")
            return
        self.print_rows(
            options,
            ["name", "kind", "queue", "state", "variables", "tags"],
            [
                (row.name, row.kind, row.queue, _kind(row), row.variables, row.tags)
                for row in organisation.environments.order_by("name")
            ],
        )


def _kind(environment: Environment) -> str:
    return str(environment.state_backend["type"])


def _json(option: str, given: str) -> Any:
    try:
        return json.loads(given)
    except ValueError as error:
        raise UsageError(f"{option} is not JSON: {error}.") from error


def _pairs(option: str, given: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"{option} {pair} is not of the form KEY=VALUE.")
        if key in pairs:
            raise UsageError(f"{option} {key} is given twice.")
        pairs[key] = value
    return pairs
