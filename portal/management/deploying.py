"""What the commands that plan and deploy have in common: where to, and which Score files."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import CommandParser

from portal.management.base import ConductorCommand, UsageError, named
from portal.management.plan_text import PlanJson, plan_lines
from portal.management.progress import NEEDS_SOMEBODY, follow, goes_on, outcome
from provisioning.durations import DurationError, read_duration
from provisioning.models import Application, Deployment, Environment
from provisioning.models.deployments import NOT_STARTED_STATUSES
from provisioning.planning.plan import Plan
from provisioning.services.deployments import wishes_not_met
from provisioning.services.deployments.priority import PriorityError, parse_priority

STANDARD_INPUT = "-"
ROLLBACK = (
    "If it does not succeed, what it creates is destroyed again, unless others use it (--rollback)."
)


@dataclass(frozen=True, slots=True)
class Target:
    """Hold who acts on which application in which environment."""

    actor: User
    application: Application
    environment: Environment


class DeployingCommand(ConductorCommand):
    """Be a command about one application in one environment."""

    def add_target(self, parser: CommandParser) -> None:
        """Add `--app`, `--env`, `--organisation` and `--as`; `self.target(options)` reads them."""
        parser.add_argument("--app", required=True, metavar="APPLICATION")
        parser.add_argument("--env", required=True, metavar="ENVIRONMENT")
        self.add_organisation(parser)
        self.add_actor(parser)

    def add_files(self, parser: CommandParser) -> None:
        """Add the Score files; `score_files(options)` reads them."""
        parser.add_argument(
            "files", nargs="+", metavar="FILE", help="a Score file; - is the standard input"
        )
        parser.add_argument(
            "--upgrade",
            action="store_true",
            help="move resources to the newest version of their template",
        )
        parser.add_argument(
            "--shrink",
            action="store_true",
            help="let shared resources shrink to what is still asked for, where that is proposed",
        )

    def add_priority(self, parser: CommandParser) -> None:
        """Add `--priority`; `self.priority(options["priority"])` reads it."""
        parser.add_argument(
            "--priority",
            default="normal",
            help="low, normal (the default), high, or a whole number; more than normal is for owners",
        )

    def priority(self, text: str) -> int:
        """Return a priority; raise UsageError."""
        try:
            return parse_priority(text)
        except PriorityError as error:
            raise UsageError(str(error)) from error

    def add_wait(self, parser: CommandParser) -> None:
        """Add `--wait` and `--wait-timeout`."""
        parser.add_argument(
            "--wait", action="store_true", help="show the progress until everything is done"
        )
        parser.add_argument(
            "--wait-timeout",
            type=positive_seconds,
            metavar="SECONDS",
            help="stop waiting after this long; the deployment goes on (exit status 1)",
        )

    def add_timeout(self, parser: CommandParser) -> None:
        """Add `--timeout`, in seconds, after which the deployment is stopped."""
        parser.add_argument(
            "--timeout",
            type=duration,
            metavar="DURATION",
            help="stop the deployment when it has run for so long: seconds, or text like 30m "
            "(default: CONDUCTOR_DEPLOYMENT_TIMEOUT_SECONDS)",
        )

    def target(self, options: dict[str, Any]) -> Target:
        """Return who acts on what; raise UsageError for a name the actor cannot see."""
        actor = self.actor(options)
        organisation = self.organisation(options)
        applications = Application.objects.visible_to(actor).filter(organisation=organisation)
        application = named(applications.select_related("team"), options["app"])
        return Target(actor, application, self.environment(organisation, options["env"]))

    def add_deployment(self, parser: CommandParser) -> None:
        """Add the number of a deployment; `self.deployment(options, actor)` reads it."""
        parser.add_argument("deployment", type=int, metavar="DEPLOYMENT", help="its number")

    def deployment(self, options: dict[str, Any], actor: User) -> Deployment:
        """Return the deployment of this number; raise UsageError if the actor sees none."""
        number = options["deployment"]
        found = Deployment.objects.visible_to(actor).filter(pk=number).first()
        if found is None:
            raise UsageError(f"There is no deployment {number}.")
        return found

    def show_plan(self, plan: Plan, options: dict[str, Any]) -> None:
        """Print a plan in the chosen format."""
        if options["format"] == "json":
            self.print_json({**plan.to_json(), "digest": plan.digest})
        else:
            self.print_plan(plan.to_json(), explain=options.get("explain", False))

    def print_plan(self, plan: PlanJson, *, explain: bool = False) -> None:
        """Print a plan as text."""
        for line in plan_lines(plan, explain=explain, paint=self.paint):
            self.stdout.write(line)

    def paint(self, text: str, action: str) -> str:
        """Color text by what happens to a resource, where the terminal has colors."""
        match action:
            case "create":
                return self.style.SUCCESS(text)
            case "update" | "recheck":
                return self.style.WARNING(text)
            case "destroy" | "release":
                return self.style.ERROR(text)
            case _:
                return text

    def watch(self, deployment: Deployment, options: dict[str, Any]) -> None:
        """Show the progress of a deployment until it has ended or needs somebody.

        With `--format json` the progress goes to stderr, so that stdout is one JSON value.
        """
        stream = self.stderr if options["format"] == "json" else self.stdout

        def show(line: str) -> None:
            stream.write(line, style_func=str)
            stream.flush()

        try:
            follow(deployment, show, timeout=options.get("wait_timeout"), paint=self.paint)
        except KeyboardInterrupt:
            self.stderr.write(f"Interrupted; {goes_on(deployment)}")
            raise

    def report(self, deployment: Deployment, options: dict[str, Any]) -> None:
        """Print a submitted deployment with its plan, and with `--wait` how it goes and ends."""
        as_json = options["format"] == "json"
        if not as_json:
            self.print_plan(deployment.plan)
            if deployment.rollback:
                self.stdout.write(self.paint(ROLLBACK, "update"))
            self.stdout.write(
                f"Deployment {deployment.pk} is {deployment.get_status_display().lower()}."
            )
            if deployment.status in NOT_STARTED_STATUSES and not options["wait"]:
                self.stdout.write(deployment.status_reason)
        if options["wait"]:
            self.watch(deployment, options)
            if deployment.status in NEEDS_SOMEBODY:
                deployment.refresh_from_db(fields=["plan"])
                if not as_json:
                    self.stdout.write("The plan is a new one:\n")
                    self.print_plan(deployment.plan)
        if as_json:
            self.print_json(deployment_json(deployment))
        else:
            for told in wishes_not_met(deployment):
                self.stdout.write(self.paint(told, "update"))
        if options["wait"]:
            line = outcome(deployment)
            if not as_json:
                self.stdout.write(line)


def deployment_json(deployment: Deployment) -> dict[str, Any]:
    """Return a deployment as JSON values, with its plan and its steps."""
    return {
        "id": deployment.pk,
        "kind": deployment.kind,
        "status": deployment.status,
        "reason": deployment.status_reason,
        "rollback": deployment.rollback,
        "retry_of": deployment.retry_of_id,
        "rollback_of": deployment.rollback_of_id,
        "workloads": deployment.workload_names,
        "plan": deployment.plan,
        "wishes_not_met": wishes_not_met(deployment),
        "steps": [
            {
                "resource": step.resource.uid,
                "action": step.action,
                "status": step.status,
                "attempt": step.attempt,
                "driver_ran": step.driver_ran,
                "blocked_by": step.blocked_by,
                "error": step.error,
            }
            for step in deployment.steps.select_related("resource").order_by("position")
        ],
    }


def positive_seconds(text: str) -> float:
    """Read a number of seconds greater than 0, for argparse."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds greater than 0.")
    return seconds


def duration(text: str) -> int:
    """Read a length of time as seconds, for argparse."""
    try:
        return read_duration(text)
    except DurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def score_files(options: dict[str, Any]) -> list[tuple[str, str]]:
    """Read the Score files as (name, text); raise UsageError for one that cannot be read."""
    paths: list[str] = options["files"]
    if paths.count(STANDARD_INPUT) > 1:
        raise UsageError("The standard input (-) can be given only once.")
    return [_read(path) for path in paths]


def _read(path: str) -> tuple[str, str]:
    try:
        if path == STANDARD_INPUT:
            return "<stdin>", sys.stdin.read()
        return path, Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text (byte {error.start}).") from error
