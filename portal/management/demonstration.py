"""What the demo needs besides the services: its surroundings, a worker, and the proof."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from django.conf import settings
from django.contrib.auth.models import User

from provisioning.exceptions import ConductorError
from provisioning.models import Application, Environment, Organisation, Team, Worker
from provisioning.services.catalog import SyncResult, sync_catalog
from provisioning.services.organisation import (
    create_application,
    create_environment,
    create_organisation,
    create_team,
)

WORKER_START_SECONDS = 30.0
WORKER_STOP_SECONDS = 15.0


class DemoError(ConductorError):
    """Say what kept the demo from showing what it should."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where the demo deploys to, and from which templates."""

    orders: Application
    reports: Application
    environment: Environment
    templates: list[SyncResult]


def prepare(actor: User) -> Surroundings:
    """Make what the demo needs, as far as it is not there yet."""
    organisation = Organisation.objects.filter(name="demo").first() or create_organisation(
        name="demo", actor=actor
    )
    team = Team.objects.filter(organisation=organisation, name="shop").first() or create_team(
        organisation=organisation, name="shop", actor=actor
    )
    environment = Environment.objects.filter(
        organisation=organisation, name="development"
    ).first() or create_environment(organisation=organisation, name="development", actor=actor)
    templates = sync_catalog(
        organisation=organisation, source=str(settings.CONDUCTOR_CATALOG), actor=actor
    )
    orders, reports = (_application(team, name, actor) for name in ("orders", "reports"))
    return Surroundings(orders, reports, environment, templates)


def _application(team: Team, name: str, actor: User) -> Application:
    found = Application.objects.filter(organisation=team.organisation, name=name).first()
    return found or create_application(team=team, name=name, actor=actor)


@contextmanager
def running_worker(queue: str) -> Generator[Worker]:
    """Run a worker process beside this one; stop it at the end, whatever happens."""
    log = Path(settings.VAR_DIR) / "demo-worker.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(settings.BASE_DIR / "manage.py"), "worker", "--queues", queue]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        yield _registered(process, log)
    finally:
        process.terminate()
        try:
            process.wait(WORKER_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _registered(process: subprocess.Popen[bytes], log: Path) -> Worker:
    """Wait until the worker has said that it is there; raise DemoError with its last words."""
    end = time.monotonic() + WORKER_START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        worker = Worker.objects.filter(pid=process.pid, stopped_at=None).last()
        if worker is not None:
            return worker
        time.sleep(0.05)
    said = log.read_text(errors="replace").strip().splitlines()[-10:]
    raise DemoError("\n".join(["The demo's worker did not start. It said:", *said]))


def connect(outputs: Mapping[str, Any]) -> psycopg.Connection[Any]:
    """Connect over TCP with what a `postgres` resource gives, as any client would."""
    return psycopg.connect(
        host=outputs["host"],
        port=outputs["port"],
        dbname=outputs["name"],
        user=outputs["username"],
        password=outputs["password"],
        connect_timeout=5,
    )


def write_order(outputs: Mapping[str, Any], text: str) -> int:
    """Write an order with one application's settings; return its number."""
    with connect(outputs) as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS orders (id bigint GENERATED ALWAYS AS IDENTITY, text text)"
        )
        row = connection.execute(
            "INSERT INTO orders (text) VALUES (%s) RETURNING id", [text]
        ).fetchone()
        return int(row[0]) if row else 0


def read_order(outputs: Mapping[str, Any], number: int) -> str | None:
    """Read an order with another application's settings; return its text, None if missing."""
    with connect(outputs) as connection:
        row = connection.execute("SELECT text FROM orders WHERE id = %s", [number]).fetchone()
        return str(row[0]) if row else None
