from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from portal.management.base import UsageError
from portal.management.deploying import DeployingCommand, Target
from provisioning.planning.plan import PlanError
from provisioning.services.deployments.submit import plan_teardown, submit_teardown


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
        parser.add_argument(
            "--plan", action="store_true", help="only show what it would do; nothing is written"
        )
        self.add_priority(parser)
        self.add_wait(parser)
        self.add_timeout(parser)
        self.add_format(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        target = self.target(options)
        try:
            self._tear_down(target, options)
        except PlanError as error:
            # The stored graph needs no Score file: only a name that was typed can be wrong.
            raise UsageError(
                "\n".join(
                    f"{each.message} ({each.hint})" if each.hint else each.message
                    for each in error.problems
                )
            ) from error

    def _tear_down(self, target: Target, options: dict[str, Any]) -> None:
        if options["plan"]:
            plan = plan_teardown(
                application=target.application,
                environment=target.environment,
                workloads=options["workload"],
            )
            self.show_plan(plan, options)
            return
        deployment = submit_teardown(
            application=target.application,
            environment=target.environment,
            workloads=options["workload"],
            actor=target.actor,
            priority=self.priority(options["priority"]),
            timeout_seconds=options["timeout"],
        )
        self.report(deployment, options)
