from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import CommandParser

from portal.management.deploying import DeployingCommand, score_files
from provisioning.models import Deployment
from provisioning.services.deployments.submit import submit_deployment


class Command(DeployingCommand):
    """Deploy Score files to an environment."""

    help = "Deploy Score files: create, reuse and update what they need, and remove the rest."

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_files(parser)
        self.add_target(parser)
        self.add_priority(parser)
        self.add_wait(parser)
        self.add_timeout(parser)
        self.add_format(parser)
        parser.add_argument(
            "--commit", type=commit, default="", metavar="SHA", help="where the files are from"
        )
        parser.add_argument(
            "--rollback",
            action="store_true",
            help="destroy again what it creates if it does not succeed, unless others use it",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        files = score_files(options)
        priority = self.priority(options["priority"])
        target = self.target(options)
        deployment = submit_deployment(
            application=target.application,
            environment=target.environment,
            files=files,
            actor=target.actor,
            commit=options["commit"],
            upgrade=options["upgrade"],
            shrink=options["shrink"],
            priority=priority,
            rollback=options["rollback"],
            timeout_seconds=options["timeout"],
        )
        self.report(deployment, options)


def commit(text: str) -> str:
    """Check that a commit's name can be kept with the deployment, for argparse."""
    limit = Deployment._meta.get_field("commit").max_length or 0
    if len(text) > limit or not text.isprintable():
        raise argparse.ArgumentTypeError(f"A commit has {limit} printable characters at most.")
    return text
