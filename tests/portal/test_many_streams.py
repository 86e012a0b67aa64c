from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection

from tests.portal.serving import Portal
from tests.provisioning.place import Place
from tests.provisioning.services.logs.saying import claimed, say

STREAMS = 40
CONNECTIONS = 2

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def web(child_environment: dict[str, str]) -> Generator[tuple[Portal, psutil.Process]]:
    """Run a web process of its own with very few database connections."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "conductor.asgi:application", "--port", str(port)]
    with subprocess.Popen(
        [*command, "--log-level", "warning", "--timeout-graceful-shutdown", "1"],
        cwd=settings.BASE_DIR,
        env=child_environment | {"CONDUCTOR_WEB_CONNECTIONS": str(CONNECTIONS)},
    ) as process:
        until = time.monotonic() + 60
        while time.monotonic() < until and process.poll() is None:
            with socket.socket() as attempt:
                if attempt.connect_ex(("127.0.0.1", port)) == 0:
                    break
        yield Portal(f"http://127.0.0.1:{port}"), psutil.Process(process.pid)
        process.terminate()


def test_streams_hold_no_thread_and_no_connection_each(
    web: tuple[Portal, psutil.Process], place: Place, alice: User, tmp_path: Path
) -> None:
    portal, process = web
    place.application("shop", alice)
    (step,) = claimed(place)
    log = say(step, "before\n")

    with ExitStack() as open_streams:
        streams = [
            open_streams.enter_context(portal.stream(step.deployment_id, alice)).events()
            for _ in range(STREAMS)
        ]
        for stream in streams:
            assert next(stream).data[0]["text"] == "before\n"
        assert "Deploy shop" in portal.get(f"/deployments/{step.deployment_id}/", alice)
        threads, connections = process.num_threads(), database_connections()
        say(step, "now\n", log=log)
        for stream in streams:
            assert "now\n" in [
                chunk["text"]
                for name, data, _ in (next(stream), next(stream))
                if name == "log"
                for chunk in data
            ]

    assert threads < STREAMS / 2
    # Those of the pool and the one that listens; and the test's own.
    assert connections <= CONNECTIONS + 2


def database_connections() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        return int(cursor.fetchone()[0])
