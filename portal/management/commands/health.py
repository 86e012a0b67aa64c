from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import CommandParser

from portal.management.base import FAILED, ConductorCommand
from provisioning.queue.schedules import schedule_states
from provisioning.services.figures.alerts import alerts, rule_file
from provisioning.services.figures.now import read_now


class Command(ConductorCommand):
    """Say what needs somebody."""

    help = "Say what needs somebody; the exit status is 1 if anything does."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--rules", action="store_true", help="print the same as a Prometheus rule file"
        )
        self.add_format(parser)

    def handle(self, *args: Any, rules: bool, **options: Any) -> None:
        if rules:
            self.stdout.write(rule_file(), ending="")
            return
        rows = [
            ("firing" if alert.reading.firing else "ok", alert.rule.title, alert.reading.text)
            for alert in alerts(read_now())
        ]
        rows += [
            ("firing" if state.problem else "ok", state.scheduled.name, state.problem)
            for state in schedule_states()
        ]
        self.print_rows(options, ["state", "rule", "figures"], rows)
        if any(state == "firing" for state, _, _ in rows):
            sys.exit(FAILED)
