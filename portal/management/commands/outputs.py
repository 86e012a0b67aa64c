from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from portal.management.base import UsageError, named
from portal.management.deploying import DeployingCommand, Target
from portal.management.settings_text import NameCollisionError, Outputs, as_text, settings_lines
from provisioning.models import Workload
from provisioning.services.outputs import resolved_outputs


class Command(DeployingCommand):
    """Print what an application's resources give to its workloads."""

    help = "Print what an application's resources give to its workloads; secrets are masked."

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_target(parser)
        parser.add_argument("--workload", metavar="NAME", help="only this one")
        self.add_format(parser, "dotenv", "shell")
        parser.add_argument(
            "--reveal", action="store_true", help="print secrets too; this is recorded"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        target = self.target(options)
        if options["workload"]:
            self._check_workload(target, options["workload"])
        outputs = resolved_outputs(
            application=target.application,
            environment=target.environment,
            workload=options["workload"],
            reveal=options["reveal"],
            actor=target.actor,
        )
        if options["format"] == "json":
            self.print_json(outputs)
        elif options["format"] == "text":
            self._print_text(outputs, target)
        else:
            try:
                lines = list(settings_lines(outputs, options["format"]))
            except NameCollisionError as error:
                raise UsageError(str(error)) from error
            for line in lines:
                self.stdout.write(line)

    def _check_workload(self, target: Target, name: str) -> None:
        deployed = Workload.objects.filter(
            application=target.application, environment=target.environment, removed_at=None
        )
        named(deployed, name)

    def _print_text(self, outputs: Outputs, target: Target) -> None:
        if not any(outputs.values()):
            self.stdout.write(f"{target.application} has no resources in {target.environment} yet.")
        for workload, aliases in outputs.items():
            self.stdout.write(self.style.MIGRATE_HEADING(workload))
            rows = [
                (f"  {alias}.{output}", as_text(value))
                for alias, values in aliases.items()
                for output, value in values.items()
            ]
            width = max((len(name) for name, _ in rows), default=0)
            for name, value in rows:
                self.stdout.write(f"{name.ljust(width)}  {value}")
