"""How soon a dead worker is noticed, its tool told, its step begun again, and a cancel heard.

The tools are shell scripts that note when they hear the SIGINT; the workers are real, with the lease that
is set by default.
"""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.place import new_place, start_worker, write_template
from provisioning.drivers.folders import lease_file
from provisioning.exceptions import ConductorError
from provisioning.models import Deployment, Step, Worker
from provisioning.models.deployments import TERMINAL_STATUSES
from provisioning.services.deployments import cancel_deployment, submit_deployment
from provisioning.services.people import system_user
from provisioning.workers.run import work_folder

CANCELS = 10
TEMPLATE = """\
name: patient
type: patient
version: 1.0.0
driver: script
config: {command: wait.sh}
"""
SCRIPT = """\
#!/bin/sh
folder=$(sed -n 's/.*"folder": *"\\([^"]*\\)".*/\\1/p')
[ -e "$folder/begun" ] && echo '{}' && exit
trap 'touch "$folder/told"; exit 1' INT
touch "$folder/begun"
while :; do sleep 0.01; done
"""
SCORE = """\
apiVersion: score.dev/v1b1
metadata: {{name: web}}
containers: {{main: {{image: busybox}}}}
resources:
  one: {{type: patient, params: {{folder: '{folder}'}}}}
"""


class Recovery(NamedTuple):
    """One thing that happened: seconds until it did, at most of so many, and the goal."""

    what: str
    seconds: float
    samples: int
    goal: float


def measure() -> Iterator[Recovery]:
    """Cancel, freeze and kill; yield what was seen, one after the other."""
    with tempfile.TemporaryDirectory(prefix="conductor-bench-") as name:
        Path(name).chmod(0o777)
        bench = _Bench(Path(name))
        with bench.worker():
            took = [bench.cancel() for _ in range(CANCELS)]
        yield Recovery("cancelled: the tool is told", max(took), CANCELS, 1)
        yield Recovery("worker frozen: its tool is told, after the lease", bench.freeze(), 1, 5)
        for where in ("this", "another"):
            noticed, again = bench.kill(elsewhere=where == "another")
            case = f"worker of {where} host killed"
            yield Recovery(f"{case}: the step is recovering", noticed, 1, 30)
            yield Recovery(f"{case}: another attempt begins", again, 1, 60)


class _Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_template(folder / "catalog", TEMPLATE, wait_sh=SCRIPT)
        (self.application,), self.environment = new_place(folder / "catalog")

    @contextmanager
    def worker(self) -> Iterator[psutil.Process]:
        started = start_worker(1, CONDUCTOR_SANDBOX_PATHS=f"{self.folder}=rw")
        try:
            yield psutil.Process(started.pid)
        finally:
            _end(psutil.Process(started.pid))
            started.wait(60)

    def begin(self) -> tuple[Step, Path]:
        """Deploy, and wait until the tool runs; return its step and the folder where it notes things."""
        notes = self.folder / uuid.uuid4().hex
        notes.mkdir()
        notes.chmod(0o777)
        deployment = submit_deployment(
            application=self.application,
            environment=self.environment,
            files=[("score.yaml", SCORE.format(folder=notes))],
            actor=system_user(),
        )
        _seconds_until((notes / "begun").exists)
        return deployment.steps.select_related("resource", "worker").get(), notes

    def cancel(self) -> float:
        """Return how long after a cancel the tool hears of it."""
        step, notes = self.begin()
        began = time.monotonic()
        cancel_deployment(deployment=step.deployment, reason="Measured.", actor=system_user())
        _seconds_until((notes / "told").exists)
        took = time.monotonic() - began
        self.finish(step)
        return took

    def freeze(self) -> float:
        """Return how long after the end of the lease the tool of a silent worker is told."""
        with self.worker() as worker:
            step, notes = self.begin()
            for process in _own_processes(worker):
                process.suspend()
            _seconds_until((notes / "told").exists)
            over = float(lease_file(work_folder(step)).read_text())
            return time.monotonic() - over

    def kill(self, *, elsewhere: bool) -> tuple[float, float]:
        """Return how long after a worker's death its step recovers, and is begun again."""
        self._drop()
        with self.worker() as worker:
            step, _ = self.begin()
            if elsewhere:
                Worker.objects.filter(pk=step.worker_id).update(host="elsewhere.example")
            with self.worker():
                began = time.monotonic()
                for process in _own_processes(worker):
                    process.kill()
                mine = Step.objects.filter(pk=step.pk)
                noticed = _seconds_until(mine.filter(losses__gt=0).exists, began)
                again = _seconds_until(mine.filter(attempt__gt=step.attempt).exists, began)
                with suppress(ConductorError):  # it may have ended by then
                    cancel_deployment(
                        deployment=step.deployment, reason="Measured.", actor=system_user()
                    )
                self.finish(step)
        return noticed, again

    def finish(self, step: Step) -> None:
        ended = Deployment.objects.filter(pk=step.deployment_id, status__in=TERMINAL_STATUSES)
        _seconds_until(ended.exists)

    def _drop(self) -> None:
        """End what an earlier case has left unfinished, with a worker of its own."""
        with self.worker():
            for step in Step.objects.filter(deployment__environment=self.environment):
                self.finish(step)


def _own_processes(worker: psutil.Process) -> list[psutil.Process]:
    """Return a worker's processes without its tools, their supervisors and sandboxes."""
    own = [worker]
    for child in worker.children():
        if "supervisor.py" not in " ".join(child.cmdline()):
            own += _own_processes(child)
    return own


def _seconds_until(happened: Callable[[], bool], began: float | None = None) -> float:
    began = time.monotonic() if began is None else began
    while not happened():
        if time.monotonic() > began + 120:
            raise RuntimeError("What was to be measured did not happen within two minutes.")
        time.sleep(0.005)
    return time.monotonic() - began


def _end(main: psutil.Process) -> None:
    for process in (main, *main.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            process.resume()
    with suppress(psutil.NoSuchProcess):
        main.terminate()
