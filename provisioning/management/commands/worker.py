from __future__ import annotations

import logging
import os
import signal
import socket
from contextlib import suppress
from functools import partial
from typing import Any

from django import db
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from provisioning.drivers.terraform.module_cache import remove_unused
from provisioning.exceptions import ConductorError
from provisioning.queue.chores import Chore, chores
from provisioning.queue.cluster import check_version
from provisioning.queue.doorbell import check_queue_name
from provisioning.queue.schedules import REGULAR, mend_schedules
from provisioning.queue.watchdog import Watchdog, cluster
from provisioning.services.database import missing_migrations
from provisioning.workers.heartbeat import EVERY_SECONDS, Heartbeat
from provisioning.workers.sweeper import sweep
from provisioning.workers.tasks import is_paused

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 5.0
MEND_SECONDS = 60.0
TIDY_SECONDS = 3600.0


class Command(BaseCommand):
    help = (
        "Take steps from the queues until stopped. SIGTERM or Ctrl-C lets running steps end first; "
        "given twice, it ends them at once and other workers take them over."
    )
    # The code's own checks, which read all pages, are for `manage.py check` and take a while.
    requires_system_checks = ["environment"]

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--queues",
            default=",".join(settings.CONDUCTOR_QUEUES),
            help="names separated by commas (default: %(default)s, set by CONDUCTOR_QUEUES)",
        )
        parser.add_argument(
            "--processes",
            type=int,
            default=settings.CONDUCTOR_WORKERS,
            help="steps run at once, per queue (default: %(default)s, set by CONDUCTOR_WORKERS)",
        )

    def handle(self, *args: Any, queues: str, processes: int, **options: Any) -> None:
        if processes < 1:
            raise CommandError("--processes must be at least 1.")
        if missing_migrations():
            raise CommandError("The database is not up to date: run `manage.py migrate` first.")
        try:
            check_version()
            names = list(
                dict.fromkeys(check_queue_name(name.strip()) for name in queues.split(","))
            )
            ended_in_order = self.work(names, processes)
        except ConductorError as error:
            raise CommandError(str(error)) from error
        if not ended_in_order:
            raise CommandError(
                "Stopped before all had ended: other workers take over what is left."
            )

    def work(self, queues: list[str], processes: int) -> bool:
        """Work until a signal says to stop; return whether everything ended in order."""
        heart = Heartbeat(queues)
        heart.register()
        regular = chores(
            Chore(EVERY_SECONDS, heart.beat),
            Chore(SWEEP_SECONDS, sweep),
            Chore(MEND_SECONDS, _mend),
            Chore(TIDY_SECONDS, lambda: remove_unused(settings.CONDUCTOR_WORK_DIR)),
            after_outage=heart.tell_outage,
        )
        counts = dict.fromkeys(queues, processes)
        clusters = [
            cluster(queue, count, paused=partial(is_paused, queue))
            for queue, count in (counts | {REGULAR: 1}).items()
        ]
        watchdog = Watchdog([*clusters, regular])
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: watchdog.stop())
        tools = ", ".join(f"{tool} {version}" for tool, version in heart.tools.items()) or "none"
        self.stdout.write(
            f"Worker {os.getpid()} on {socket.gethostname()}: queues {', '.join(queues)}; "
            f"{processes} processes each; tools: {tools}; sandbox: {heart.sandbox}."
        )
        self.stdout.flush()
        try:
            return watchdog.run()
        finally:
            with suppress(db.Error):
                heart.stop()


def _mend() -> None:
    for wrong in mend_schedules():
        logger.warning("%s It has been put right.", wrong)
