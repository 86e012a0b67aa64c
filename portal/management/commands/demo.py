from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management.base import CommandParser

from portal.management.demonstration import (
    DemoError,
    Surroundings,
    connect,
    prepare,
    read_order,
    running_worker,
    write_order,
)
from portal.management.deploying import DeployingCommand, positive_seconds
from portal.management.plan_text import Paint, plan_lines
from portal.management.progress import follow, outcome
from portal.management.settings_text import as_text
from provisioning.drivers import get_driver
from provisioning.models import Application, ConsumerState, Deployment, ResourceConsumer
from provisioning.services.deployments.submit import submit_deployment, submit_teardown
from provisioning.services.outputs import resolved_outputs
from provisioning.services.people import system_user

SHARED_KEY = "shared/orders"


class Command(DeployingCommand):
    """Tell the story of two applications that share one database, with real resources."""

    help = (
        "Deploy two applications that share one real PostgreSQL database, and prove it. "
        "It can be run again at any time."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--keep", action="store_true", help="leave both applications deployed")
        parser.add_argument(
            "--teardown", action="store_true", help="at the end, tear down both applications"
        )
        parser.add_argument("--timeout", type=positive_seconds, default=120, metavar="SECONDS")

    def handle(self, *args: Any, **options: Any) -> None:
        began = time.monotonic()
        self._say(self.style.SUCCESS("Two applications share one real PostgreSQL database."))
        actor = system_user()
        surroundings = prepare(actor)
        self._say(
            f"Organisation demo: applications orders and reports, environment development, "
            f"{len(surroundings.templates)} resource templates from {settings.CONDUCTOR_CATALOG}."
        )
        with running_worker(surroundings.environment.queue) as worker:
            self._say(f"A worker has started (process {worker.pid}).")
            story = Story(self._say, self.paint, surroundings, actor, options["timeout"])
            self._tell(story, keep=options["keep"], teardown=options["teardown"])
        self._say(f"\nDone in {time.monotonic() - began:.1f} s.")
        if not options["teardown"]:
            self._say(
                "To look at it in a browser: make run. To remove it: manage.py demo --teardown"
            )

    def _tell(self, story: Story, *, keep: bool, teardown: bool) -> None:
        chapters: list[tuple[str, Callable[[], None]]] = [
            ("orders asks for a database by the shared name “orders”", story.deploy_orders),
            (
                "reports asks for the same name, so it is given the same database",
                story.deploy_reports,
            ),
            ("What the two applications are given (secrets masked)", story.show_settings),
            ("The proof: one writes, the other reads", story.prove_shared),
        ]
        if teardown or not keep:
            chapters.append(("reports leaves: the database stays for orders", story.reports_leave))
        if teardown:
            chapters.append(
                ("orders leaves: nobody is left, the database goes", story.orders_leave)
            )
        for number, (title, chapter) in enumerate(chapters, start=1):
            self._say(f"\n{self.style.MIGRATE_HEADING(f'{number}. {title}')}")
            chapter()

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()


@dataclass(slots=True)
class Story:
    """The chapters of the demo, in order."""

    say: Callable[[str], None]
    paint: Paint
    surroundings: Surroundings
    actor: User
    timeout: float

    def deploy_orders(self) -> None:
        """Deploy the application that asks first, with Terraform where there is one."""
        files = ["orders/score.yaml"]
        tool = get_driver("terraform").tool()
        name, version = tool or ("terraform", None)
        if version:
            files.append("orders/archive.yaml")
        else:
            self.say(
                f"({name} is not installed, so the Terraform part, archive.yaml, is left out.)"
            )
        self._deploy(self.surroundings.orders, files)

    def deploy_reports(self) -> None:
        """Deploy the application that joins."""
        self._deploy(self.surroundings.reports, ["reports/score.yaml"])

    def show_settings(self) -> None:
        """Show what both applications are given, secrets masked."""
        orders = self._outputs(self.surroundings.orders, reveal=False)
        reports = self._outputs(self.surroundings.reports, reveal=False)
        mine, theirs = orders["api"]["db"], reports["dashboard"]["orders"]
        width = max(len(as_text(value)) for value in mine.values())
        self.say(f"  {'':10}{'orders: api.db':{width}}  reports: dashboard.orders")
        for key, value in mine.items():
            self.say(f"  {key:10}{as_text(value):{width}}  {as_text(theirs[key])}")
        addresses = orders["api"]["address"]["url"], reports["dashboard"]["address"]["url"]
        self.say(f"  Each has an address of its own: {' and '.join(addresses)}")
        if "archive" in orders:
            endpoint = orders["archive"]["storage"]["endpoint"]
            self.say(f"  Terraform made orders' storage (a simulation): {endpoint}")

    def prove_shared(self) -> None:
        """Write with one application's settings over TCP, and read with the other's."""
        mine = self._outputs(self.surroundings.orders, reveal=True)["api"]["db"]
        theirs = self._outputs(self.surroundings.reports, reveal=True)["dashboard"]["orders"]
        text = f"{secrets.randbelow(90) + 10} apples, receipt {secrets.token_hex(4)}"
        number = write_order(mine, text)
        self.say(f"  orders wrote   order {number}: {text}")
        found = read_order(theirs, number)
        if found != text:
            raise DemoError(f"reports reads {found!r}, which is not what orders wrote.")
        self.say(f"  reports reads  order {number}: {found}")
        self._count(expected=2)

    def reports_leave(self) -> None:
        """Tear down the application that joined; its login must go, and the database stay."""
        theirs = self._outputs(self.surroundings.reports, reveal=True)["dashboard"]["orders"]
        self._teardown(self.surroundings.reports)
        self._check_refused(theirs, "reports is refused by the database: its login is gone.")
        with connect(self._outputs(self.surroundings.orders, reveal=True)["api"]["db"]) as link:
            link.execute("SELECT count(*) FROM orders")
        self.say("  orders still reaches its database.")
        self._count(expected=1)

    def orders_leave(self) -> None:
        """Tear down the last user; the database must go."""
        database = self._outputs(self.surroundings.orders, reveal=True)["api"]["db"]
        self._teardown(self.surroundings.orders)
        self._check_refused(database, "Nobody can connect to the database any more: it is gone.")

    def _deploy(self, application: Application, names: list[str]) -> None:
        folder = settings.BASE_DIR / "examples"
        files = [(f"examples/{name}", (folder / name).read_text("utf-8")) for name in names]
        self.say(f"  Files: {', '.join(name for name, _ in files)}")
        deployment = submit_deployment(
            application=application,
            environment=self.surroundings.environment,
            files=files,
            actor=self.actor,
            upgrade=True,
        )
        self._wait(deployment)

    def _teardown(self, application: Application) -> None:
        deployment = submit_teardown(
            application=application,
            environment=self.surroundings.environment,
            workloads=None,
            actor=self.actor,
        )
        self._wait(deployment)

    def _wait(self, deployment: Deployment) -> None:
        for line in plan_lines(deployment.plan, paint=self.paint):
            self.say(f"  {line}".rstrip())

        def show(line: str) -> None:
            self.say(f"  {line}")

        follow(deployment, show, timeout=self.timeout, paint=self.paint)
        show(outcome(deployment))

    def _outputs(
        self, application: Application, *, reveal: bool
    ) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
        return resolved_outputs(
            application=application,
            environment=self.surroundings.environment,
            reveal=reveal,
            actor=self.actor,
        )

    def _check_refused(self, database: Mapping[str, Any], proof: str) -> None:
        """Say the proof if the database refuses what an application was given; raise DemoError."""
        try:
            connect(database).close()
        except psycopg.OperationalError:
            self.say(f"  {proof}")
        else:
            raise DemoError(f"{database['username']} can still connect to the database.")

    def _count(self, *, expected: int) -> None:
        """Show who uses the database; raise DemoError if it is not as many as there should be."""
        consumers = ResourceConsumer.objects.filter(
            resource__environment=self.surroundings.environment,
            resource__key__startswith=SHARED_KEY,
            state=ConsumerState.ACTIVE,
        ).select_related("workload__application")
        names = sorted(f"{row.workload.application}/{row.workload.name}" for row in consumers)
        self.say(f"  Consumers of the database: {len(names)} ({', '.join(names)})")
        if len(names) != expected:
            raise DemoError(f"{expected} consumers were expected.")
