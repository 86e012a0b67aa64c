from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from portal.management.deploying import DeployingCommand
from provisioning.services.deployments.priority import priority_name, set_priority


class Command(DeployingCommand):
    """Let a deployment's steps be taken earlier or later."""

    help = "Change the priority of a deployment that has not ended."

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_deployment(parser)
        parser.add_argument("priority", help="low, normal, high, or a whole number")
        self.add_actor(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        actor = self.actor(options)
        deployment = set_priority(
            deployment=self.deployment(options, actor),
            priority=self.priority(options["priority"]),
            actor=actor,
        )
        name = priority_name(deployment.priority)
        self.stdout.write(f"Deployment {deployment.pk} has the priority {name}.")
