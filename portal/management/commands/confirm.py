from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from portal.management.deploying import DeployingCommand
from provisioning.services.deployments.submit import confirm_deployment


class Command(DeployingCommand):
    """Agree to a plan that changed after it was shown."""

    help = "Agree to the new plan of a deployment that waits for confirmation, and start it."

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_deployment(parser)
        self.add_actor(parser)
        self.add_wait(parser)
        self.add_format(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        actor = self.actor(options)
        deployment = self.deployment(options, actor)
        self.report(confirm_deployment(deployment=deployment, actor=actor), options)
