from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from portal.management.deploying import DeployingCommand, score_files
from provisioning.services.deployments.submit import plan_deployment


class Command(DeployingCommand):
    """Show what a deployment would do, and why; write nothing."""

    help = "Show what deploying Score files would do, and why. Nothing is written."

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_files(parser)
        self.add_target(parser)
        self.add_format(parser)
        parser.add_argument(
            "--explain", action="store_true", help="show every template considered, and why it lost"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        files = score_files(options)
        target = self.target(options)
        plan = plan_deployment(
            application=target.application,
            environment=target.environment,
            files=files,
            upgrade=options["upgrade"],
            shrink=options["shrink"],
        )
        self.show_plan(plan, options)
