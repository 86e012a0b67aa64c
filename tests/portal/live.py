"""Serves the portal from a process of its own, on a free port of this machine."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings

from tests.provisioning.queue.conftest import wait_for


@contextmanager
def served(environment: dict[str, str], folder: Path) -> Iterator[str]:
    """Run an ASGI server on the test's database; yield its address."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    output = folder / "server-output"
    words = ["conductor.asgi:application", "--port", str(port), "--log-level", "warning"]
    with output.open("ab") as sink:
        server = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", *words],
            cwd=settings.BASE_DIR,
            env=environment | {"CONDUCTOR_PROCESS": "web", "CONDUCTOR_WEB_CONNECTIONS": "4"},
            stdout=sink,
            stderr=sink,
        )
    try:
        wait_for("the server answered", lambda: _answers(address, server, output), 20)
        yield address
    finally:
        server.terminate()
        server.wait(10)


def free_port() -> int:
    """Return a port of this machine that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(address: str, server: subprocess.Popen[bytes], output: Path) -> bool:
    assert server.poll() is None, output.read_text()
    try:
        urllib.request.urlopen(f"{address}/accounts/login/", timeout=5).close()  # noqa: S310
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
