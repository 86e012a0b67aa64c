from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from portal.management.base import ConductorCommand, UsageError, named
from portal.management.map_file import map_in
from provisioning.models import (
    Environment,
    ResourcePool,
    ResourceTemplate,
    ResourceTemplateVersion,
)
from provisioning.services import pools


class Command(ConductorCommand):
    """Keep resources ready before anybody asks for them."""

    help = "List, create, resize or drain the pools of an environment."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        listing = actions.add_parser("list", help="list the pools with the number of members")
        self._add_place(listing)
        self.add_format(listing)
        self._add_create(actions)
        resize = actions.add_parser("resize", help="change how many members there are")
        self._add_name(resize)
        resize.add_argument("--size", type=int, help="how many are kept ready")
        resize.add_argument("--max-size", type=int, help="how many there may be, claimed included")
        drain = actions.add_parser("drain", help="keep none ready: destroy the unclaimed")
        self._add_name(drain)

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        environment = self.environment(self.organisation(options), options["env"])
        getattr(self, f"_{action}")(environment, options)

    def _add_place(self, parser: CommandParser) -> None:
        parser.add_argument("--env", required=True, metavar="ENVIRONMENT")
        self.add_organisation(parser)
        self.add_actor(parser)

    def _add_name(self, parser: CommandParser) -> None:
        parser.add_argument("name", metavar="NAME")
        self._add_place(parser)

    def _add_create(self, actions: Any) -> None:
        parser = actions.add_parser("create", help="make a pool, and begin to fill it")
        self._add_name(parser)
        parser.add_argument("--template", required=True, help="what makes the members")
        parser.add_argument("--version", dest="template_version", help="default: the newest active")
        parser.add_argument("--team", required=True, help="who owns the pool")
        parser.add_argument("--params", metavar="FILE", help="a YAML or JSON map of their params")
        parser.add_argument("--size", type=int, required=True, help="how many are kept ready")
        parser.add_argument(
            "--max-size", type=int, required=True, help="how many there may be, claimed included"
        )
        parser.add_argument(
            "--max-concurrent", type=int, default=2, help="how many are made at once (default 2)"
        )
        parser.add_argument(
            "--policy", default="open", help="open (the default) or closed to other teams"
        )
        parser.add_argument("--claim-seconds", type=int, help="how long a claim lasts")

    def _list(self, environment: Environment, options: dict[str, Any]) -> None:
        self.print_rows(
            options,
            [
                "name", "template", "owner", "policy", "size", "max_size", "ready", "making",
                "failed", "claimed", "leaving",
            ],
            [
                (
                    each.pool.name,
                    f"{each.pool.template_version.template}@{each.pool.template_version.version}",
                    each.pool.owner_team.name,
                    each.pool.sharing_policy,
                    each.pool.size,
                    each.pool.max_size,
                    each.ready,
                    each.making,
                    each.failed,
                    each.claimed,
                    each.leaving,
                )
                for each in pools.list_pools(environment=environment)
            ],
        )  # fmt: skip

    def _create(self, environment: Environment, options: dict[str, Any]) -> None:
        organisation = environment.organisation
        template = named(
            ResourceTemplate.objects.filter(organisation=organisation), options["template"]
        )
        pool = pools.create_pool(
            environment=environment,
            team=self.team(organisation, options["team"]),
            name=options["name"],
            version=_version(template, options["template_version"]),
            params=map_in(options["params"]) if options["params"] else {},
            size=options["size"],
            max_size=options["max_size"],
            max_concurrent=options["max_concurrent"],
            sharing_policy=options["policy"],
            claim_seconds=options["claim_seconds"],
            actor=self.actor(options),
        )
        self.stdout.write(f"Created the pool {pool.name}: {_sizes(pool)}.")

    def _resize(self, environment: Environment, options: dict[str, Any]) -> None:
        if options["size"] is None and options["max_size"] is None:
            raise UsageError("Say what to change: --size, --max-size or both.")
        pool = pools.resize_pool(
            pool=_named(environment, options),
            size=options["size"],
            max_size=options["max_size"],
            actor=self.actor(options),
        )
        self.stdout.write(f"The pool {pool.name} keeps {_sizes(pool)}.")

    def _drain(self, environment: Environment, options: dict[str, Any]) -> None:
        pool = pools.drain_pool(pool=_named(environment, options), actor=self.actor(options))
        self.stdout.write(f"The pool {pool.name} keeps none ready; claimed members stay.")


def _named(environment: Environment, options: dict[str, Any]) -> ResourcePool:
    rows = ResourcePool.objects.filter(environment=environment)
    return named(rows.select_related("environment", "owner_team"), options["name"])


def _version(template: ResourceTemplate, version: str | None) -> ResourceTemplateVersion:
    if version is None:
        return pools.newest_version(template)
    return named(template.versions.all(), version, field="version")


def _sizes(pool: ResourcePool) -> str:
    return f"{pool.size} ready, {pool.max_size} at most"
