"""How long a line of a log takes from the worker that hears it to somebody who watches.

A worker's process stores lines as a running tool's; uvicorn serves them as a stream of events; the
watcher breaks the stream off again and again, and comes back with the id of the last event.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from django.conf import settings
from django.contrib.auth.models import User
from django.db import connections
from django.test import Client

from provisioning.models import (
    Application,
    Environment,
    Organisation,
    ResourceTemplate,
    ResourceTemplateVersion,
    Step,
    Team,
    TemplateRule,
)
from provisioning.services.deployments import submit_deployment
from provisioning.workers.logs import Log
from provisioning.workers.masking import Mask
from provisioning.workers.tasks import claim

LINES_PER_SECOND = 1000
SECONDS = 15
STAY_SECONDS = 0.5
SECRETS = 10
QUEUE = "bench-logs"
SCORE = """\
apiVersion: score.dev/v1b1
metadata: {name: api}
containers: {main: {image: busybox}}
resources:
  db: {type: bench-logs}
"""


class Delay(NamedTuple):
    """Milliseconds from a line to who watches, the lines measured, and how often the watcher came back."""

    p50: float
    p95: float
    lines: int
    visits: int


def measure() -> Delay:
    """Watch a step that says a thousand lines a second; raise AssertionError if one is lost or doubled."""
    step = _running_step()
    watcher = User.objects.create_user("bench-logs", is_staff=True)
    client = Client()
    client.force_login(watcher)
    cookie = f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"
    with _web() as port:
        connections.close_all()
        worker = multiprocessing.get_context("fork").Process(target=_speak, args=(step,))
        worker.start()
        delays, visits = _watch(port, step.deployment_id, cookie, LINES_PER_SECOND * SECONDS)
        worker.join()
    percentiles = statistics.quantiles(delays, n=100, method="inclusive")
    return Delay(percentiles[49], percentiles[94], len(delays), visits)


def _speak(step: Step) -> None:
    """Say lines with their number and the time, at an even pace."""
    mask = Mask()
    mask.add([f"secret-{number}-{os.urandom(12).hex()}" for number in range(SECRETS)])
    log, began = Log(step, mask), time.monotonic()
    for number in range(LINES_PER_SECOND * SECONDS):
        time.sleep(max(0.0, began + number / LINES_PER_SECOND - time.monotonic()))
        log.add(
            f"{number} {time.monotonic():.6f} module.part[{number}]: Creating...\n",
            "stdout",
            "info",
        )
        log.flush_if_due()
    log.close()


def _watch(port: int, deployment: int, cookie: str, lines: int) -> tuple[list[float], int]:
    delays: list[float] = []
    visits, last = 0, ""
    while len(delays) < lines:
        visits += 1
        leave = time.monotonic() + STAY_SECONDS
        for event_id, texts in _events(port, deployment, cookie, last):
            now = time.monotonic()
            for line in "".join(texts).splitlines():
                number, said, _ = line.split(" ", 2)
                if int(number) != len(delays):
                    raise AssertionError(f"line {number} came where {len(delays)} was due")
                delays.append((now - float(said)) * 1000)
            last = event_id
            if now > leave or len(delays) == lines:
                break
    return delays, visits


def _events(port: int, deployment: int, cookie: str, last: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the id and the texts of each event of a log."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Cookie": cookie} | ({"Last-Event-ID": last} if last else {})
    connection.request("GET", f"/deployments/{deployment}/log/events/", headers=headers)
    answer, fields = connection.getresponse(), dict[str, str]()
    try:
        while line := answer.readline():
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name:
                fields[name] = value
            elif fields.pop("event", "") == "log":
                yield fields["id"], [chunk["text"] for chunk in json.loads(fields["data"])]
    finally:
        connection.close()


@contextmanager
def _web() -> Iterator[int]:
    """Serve the portal, and return its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    command = ("-m", "uvicorn", "conductor.asgi:application", "--log-level", "warning")
    web = subprocess.Popen(
        [sys.executable, *command, "--port", str(port), "--timeout-graceful-shutdown", "1"],
        cwd=settings.BASE_DIR,
    )
    try:
        while web.poll() is None:
            with socket.socket() as attempt:
                if attempt.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port
    finally:
        web.terminate()
        web.wait(30)


def _running_step() -> Step:
    organisation = Organisation.objects.create(name="bench-logs")
    team = Team.objects.create(organisation=organisation, name="bench")
    environment = Environment.objects.create(organisation=organisation, name="bench", queue=QUEUE)
    template = ResourceTemplate.objects.create(
        organisation=organisation, name="bench-logs", type="bench-logs", driver="fake"
    )
    TemplateRule.objects.create(organisation=organisation, template=template, type="bench-logs")
    ResourceTemplateVersion.objects.create(
        template=template, version="1.0.0", state="active", digest="sha256:1"
    )
    submit_deployment(
        application=Application.objects.create(organisation=organisation, team=team, name="bench"),
        environment=environment,
        files=[("score.yaml", SCORE)],
        actor=None,
    )
    step = claim(QUEUE)
    if step is None:
        raise AssertionError("a deployment has a step")
    return step
