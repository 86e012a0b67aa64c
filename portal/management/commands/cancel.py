from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from portal.management.deploying import DeployingCommand, deployment_json
from provisioning.models import DeploymentStatus
from provisioning.services.deployments.cancel import cancel_deployment


class Command(DeployingCommand):
    """Cancel a deployment."""

    help = (
        "Cancel a deployment: what has not begun never begins, and the tools that run are told to "
        "stop once they have noted what they made."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_deployment(parser)
        parser.add_argument("--reason", default="", metavar="TEXT", help="why; kept with it")
        self.add_actor(parser)
        self.add_wait(parser)
        self.add_format(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        actor = self.actor(options)
        deployment = cancel_deployment(
            deployment=self.deployment(options, actor), actor=actor, reason=options["reason"]
        )
        if options["wait"]:
            self.watch(deployment, options)
        if options["format"] == "json":
            self.print_json(deployment_json(deployment))
            return
        label = deployment.get_status_display().lower()
        self.stdout.write(f"Deployment {deployment.pk} is {label}. {deployment.status_reason}")
        if deployment.status == DeploymentStatus.CANCELLING:
            self.stdout.write("It ends when the tools that run for it have stopped.")
