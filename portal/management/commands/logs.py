from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from portal.management.deploying import DeployingCommand
from portal.management.progress import outcome
from provisioning.models import Deployment, LogChunk


class Command(DeployingCommand):
    """Show what the steps of a deployment said."""

    help = "Show what the steps of a deployment said."

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_deployment(parser)
        parser.add_argument("--resource", metavar="UID", help="only the step on this resource")
        parser.add_argument("--follow", action="store_true", help="watch it until it has ended")
        self.add_actor(parser)
        self.add_format(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        deployment = self.deployment(options, self.actor(options))
        if options["follow"]:
            self.watch(deployment, options)
        chunks = self._chunks(deployment, options["resource"])
        if options["format"] == "json":
            self.print_json(chunks)
        else:
            self._print_text(chunks)
        if options["follow"]:
            self.stdout.write(outcome(deployment))

    def _chunks(self, deployment: Deployment, uid: str | None) -> list[dict[str, Any]]:
        rows = LogChunk.objects.filter(step__deployment=deployment).select_related("step__resource")
        if uid:
            rows = rows.filter(step__resource__uid=uid)
        return [
            {
                "at": chunk.created_at.isoformat(),
                "resource": chunk.step.resource.uid,
                "action": chunk.step.action,
                "attempt": chunk.attempt,
                "stream": chunk.stream,
                "level": chunk.level,
                "text": chunk.text,
            }
            for chunk in rows.order_by("step__position", "attempt", "sequence")
        ]

    def _print_text(self, chunks: list[dict[str, Any]]) -> None:
        heading = ""
        for chunk in chunks:
            title = f"{chunk['action']} {chunk['resource']} (attempt {chunk['attempt']})"
            if title != heading:
                heading = title
                self.stdout.write(self.style.MIGRATE_HEADING(title))
            for line in chunk["text"].splitlines():
                self.stdout.write(f"  {line}")
