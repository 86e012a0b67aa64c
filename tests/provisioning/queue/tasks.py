"""Tasks that real workers run in tests; each notes what happens to it in a file."""

from __future__ import annotations

import os
import time
from pathlib import Path

LEDGER = "TEST_LEDGER"
_PATIENCE = 60


def note(queue: str) -> None:
    """Note that the task has run."""
    _write("ran", queue)


def hold(queue: str) -> None:
    """Run until the file `<ledger>.release` exists."""
    _write("began", queue)
    release = Path(os.environ[LEDGER] + ".release")
    give_up = time.monotonic() + _PATIENCE
    while not release.exists() and time.monotonic() < give_up:
        time.sleep(0.02)
    _write("ended", queue)


def fail(queue: str) -> None:
    """Fail."""
    _write("failed", queue)
    raise RuntimeError("this task fails")


def tell_draining(queue: str) -> None:
    """Run until this process is asked to drain."""
    from provisioning.queue.lifeline import draining

    _write("began", queue)
    give_up = time.monotonic() + _PATIENCE
    while not draining() and time.monotonic() < give_up:
        time.sleep(0.02)
    _write("drained" if draining() else "gave up", queue)


def _write(event: str, queue: str) -> None:
    with open(os.environ[LEDGER], "a") as ledger:
        ledger.write(f"{event} {queue} {os.getpid()}\n")
