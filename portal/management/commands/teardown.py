from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from portal.management.deploying import DeployingCommand
from provisioning.services.deployments.submit import submit_teardown


class Command(DeployingCommand):
    """Remove an application's workloads from an environment."""

    help = (
        "Remove an application's workloads from an environment, and destroy what nobody else uses."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_target(parser)
        parser.add_argument(
            "--workload",
            action="append",
            metavar="NAME",
            help="remove only this one; may be repeated (default: all of them)",
        )
        self.add_wait(parser)
        self.add_format(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        target = self.target(options)
        deployment = submit_teardown(
            application=target.application,
            environment=target.environment,
            workloads=options["workload"],
            actor=target.actor,
        )
        self.report(deployment, options)
