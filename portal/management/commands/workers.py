from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from portal.management.base import ConductorCommand
from provisioning.services.figures.now import worker_state
from provisioning.services.workers import drain_worker, find_worker, recent_workers


class Command(ConductorCommand):
    """Look at the workers, and let one take nothing new."""

    help = "List the workers, or let one end what it runs and take nothing new."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        listing = actions.add_parser("list", help="list those that were seen within a day")
        self.add_format(listing)
        drain = actions.add_parser("drain", help="let one end what it runs and take nothing new")
        resume = actions.add_parser("resume", help="let one take steps again")
        for each in (drain, resume):
            each.add_argument("worker", metavar="WORKER", help="its host, HOST:PROCESS or id")
            self.add_actor(each)

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        if action == "list":
            self.print_rows(
                options,
                ["id", "host", "pid", "state", "version", "queues", "tools", "last_seen"],
                [
                    (
                        str(worker.pk),
                        worker.host,
                        worker.pid,
                        worker_state(worker),
                        worker.version,
                        worker.queues,
                        worker.tools,
                        f"{worker.last_seen_at:%Y-%m-%d %H:%M:%S} UTC",
                    )
                    for worker in recent_workers()
                ],
            )
            return
        worker = drain_worker(
            worker=find_worker(options["worker"]),
            draining=action == "drain",
            actor=self.actor(options),
        )
        does = "ends what it runs, and takes nothing new" if worker.draining else "takes steps"
        self.stdout.write(f"The worker {worker.host}:{worker.pid} {does}.")
