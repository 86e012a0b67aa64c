from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from portal.management.deploying import DeployingCommand
from provisioning.services.deployments.retry import retry_deployment


class Command(DeployingCommand):
    """Ask once more for what a deployment asked for."""

    help = (
        "Deploy once more what a deployment asked for that failed, was cancelled or timed out. It "
        "resumes from there: what has succeeded is not done twice."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_deployment(parser)
        self.add_actor(parser)
        self.add_wait(parser)
        self.add_timeout(parser)
        self.add_format(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        actor = self.actor(options)
        deployment = self.deployment(options, actor)
        retry = retry_deployment(
            deployment=deployment, actor=actor, timeout_seconds=options["timeout"]
        )
        self.report(retry, options)
