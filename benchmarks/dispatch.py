"""How long after a doorbell is rung its task begins, in a real worker."""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import NamedTuple

from django.conf import settings
from django_q.models import OrmQ

from provisioning.queue.doorbell import ring

_LEDGER = "DISPATCH_LEDGER"


class Dispatch(NamedTuple):
    """Milliseconds from the ring to the start of its task."""

    p50: float
    p95: float
    samples: int


def note_start(queue: str) -> None:
    """Write down when this task began (what the rung worker runs)."""
    began = time.monotonic()
    with open(os.environ[_LEDGER], "a") as ledger:
        ledger.write(f"{began}\n")


def measure(samples: int = 60, processes: int = 2) -> Dispatch:
    """Ring an idle worker `samples` times and return how long its tasks took to begin."""
    queue = f"bench-{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder) / "ledger"
        worker = subprocess.Popen(
            [
                *(sys.executable, str(settings.BASE_DIR / "manage.py"), "worker"),
                *("--queues", queue, "--processes", str(processes)),
            ],
            env={**os.environ, _LEDGER: str(ledger)},
            stdout=subprocess.DEVNULL,
        )
        try:
            for _ in range(5):  # until both processes have their connections
                _sample(queue, ledger, worker)
            took = [_sample(queue, ledger, worker) for _ in range(samples)]
        finally:
            worker.terminate()
            worker.wait(30)
            OrmQ.objects.filter(key=queue).delete()
    percentiles = statistics.quantiles(took, n=100, method="inclusive")
    return Dispatch(percentiles[49], percentiles[94], samples)


def _sample(queue: str, ledger: Path, worker: subprocess.Popen[bytes]) -> float:
    """Return the milliseconds of one ring, sent at a random moment of the worker's wait."""
    time.sleep(random.uniform(0.02, 0.2))
    before = len(_lines(ledger))
    rung = time.monotonic()
    ring(queue, task=f"{__name__}.{note_start.__name__}")
    while len(lines := _lines(ledger)) == before:
        if worker.poll() is not None:
            raise RuntimeError(f"The measured worker ended with exit code {worker.returncode}.")
        if time.monotonic() - rung > 30:
            raise RuntimeError("The measured worker began no task within 30 seconds.")
        time.sleep(0.001)
    return (float(lines[-1]) - rung) * 1000


def _lines(ledger: Path) -> list[str]:
    return [line for line in ledger.read_text().split("\n") if line] if ledger.exists() else []
