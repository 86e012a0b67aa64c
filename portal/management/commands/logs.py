from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import CommandParser
from django.utils.dateparse import parse_datetime

from portal.management.base import UsageError
from portal.management.deploying import DeployingCommand
from portal.management.progress import NEEDS_SOMEBODY, outcome, step_outcome
from provisioning.models import Deployment, DeploymentStatus
from provisioning.services.logs.following import follow
from provisioning.services.logs.reading import Entry, LogReader, read_all
from provisioning.services.logs.text import LogText

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Command(DeployingCommand):
    """Show what the steps of a deployment said."""

    help = (
        "Show what the steps of a deployment said. With --follow, show it as it is said, and end "
        "with the deployment, or the chosen step: exit status 0 if that succeeded."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_deployment(parser)
        parser.add_argument(
            "--step", metavar="STEP", help="only this step: its resource's uid, or its number"
        )
        parser.add_argument(
            "--since",
            type=moment,
            metavar="TIME",
            help="only what was said since: 90s, 10m, 2h, 1d, or a time such as 2026-11-20T09:00Z",
        )
        parser.add_argument("-f", "--follow", action="store_true", help="go on until it has ended")
        self.add_actor(parser)
        self.add_format(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        deployment = self.deployment(options, self.actor(options))
        self._as_json = options["format"] == "json"
        self._text = LogText(self.style.MIGRATE_HEADING)
        step = self._step(deployment, options["step"])
        if not options["follow"]:
            for entries in read_all(deployment.pk, step_id=step, since=options["since"]):
                self._show(entries)
            return
        reader = LogReader(deployment.pk, step_id=step, since=options["since"])
        for entries in self._followed(reader):
            self._show(entries)
        deployment.refresh_from_db()
        line = outcome(deployment) if step is None else step_outcome(deployment.steps.get(pk=step))
        (self.stderr if self._as_json else self.stdout).write(line, style_func=str)

    def _step(self, deployment: Deployment, name: str | None) -> int | None:
        """Return the number of the named step; raise UsageError if there is none."""
        if name is None:
            return None
        rows = deployment.steps.order_by("position").values_list("resource__uid", "pk")
        steps = {str(pk): pk for _, pk in rows} | dict(rows)
        if name not in steps:
            known = ", ".join(uid for uid, _ in rows[:10])
            raise UsageError(
                f"Deployment {deployment.pk} has no step {name}. "
                + (f"There are {known}." if known else "It has not started.")
            )
        return steps[name]

    def _followed(self, reader: LogReader) -> Iterator[Sequence[Entry]]:
        """Yield what is said until the end, or until somebody is needed; say on stderr what it waits for."""
        told = ""
        for piece in follow(reader):
            yield piece.entries
            if piece.changed and reader.reason != told and reader.status in WAITS:
                told = reader.reason
                self.stderr.write(told, style_func=str)
            if reader.status in NEEDS_SOMEBODY:
                return

    def _show(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if self._as_json:
                text = json.dumps(entry.as_json(), ensure_ascii=False) + "\n"
            else:
                text = self._text.of(entry)
            self.stdout.write(text, ending="")
        if entries:
            self.stdout.flush()


WAITS = (DeploymentStatus.WAITING, DeploymentStatus.PENDING_APPROVAL)


def moment(text: str) -> datetime:
    """Read how long ago, or when, for argparse."""
    found = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if found:
        return datetime.now(UTC) - timedelta(**{UNITS[found[2]]: int(found[1])})
    try:
        when = parse_datetime(text)
    except ValueError:
        when = None
    if when is None:
        raise argparse.ArgumentTypeError(
            f"{text} is neither a duration such as 10m nor a time such as 2026-11-20T09:00Z."
        )
    return when if when.tzinfo else when.replace(tzinfo=UTC)
