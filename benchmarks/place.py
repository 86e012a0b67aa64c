"""Where benchmarks deploy: an organisation of their own with a catalogue, and a worker that runs."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings

from provisioning.models import Application, Environment
from provisioning.services.catalog import sync_catalog
from provisioning.services.organisation import (
    create_application,
    create_environment,
    create_organisation,
    create_team,
)
from provisioning.services.people import system_user


def new_place(catalog: Path, *, applications: int = 1) -> tuple[list[Application], Environment]:
    """Store an organisation with the templates of a folder; return its applications and environment."""
    actor = system_user()
    organisation = create_organisation(name=f"bench-{uuid.uuid4().hex[:8]}", actor=actor)
    team = create_team(organisation=organisation, name="bench", actor=actor)
    sync_catalog(organisation=organisation, source=str(catalog), actor=actor)
    made = [
        create_application(team=team, name=f"app-{number}", actor=actor)
        for number in range(applications)
    ]
    return made, create_environment(organisation=organisation, name="dev", actor=actor)


def write_template(folder: Path, template: str, **files: str) -> None:
    """Write `template.yaml` and other files, names with `_` for `.`, such as `main_tf`."""
    folder.mkdir(exist_ok=True)
    for name, text in {"template_yaml": template, **files}.items():
        path = folder / name.replace("_", ".")
        path.write_text(text)
        path.chmod(0o755 if text.startswith("#!") else 0o644)


def start_worker(processes: int = 2, **environment: str) -> subprocess.Popen[bytes]:
    """Start a worker with so many processes and some more variables."""
    command = [sys.executable, str(settings.BASE_DIR / "manage.py"), "worker"]
    return subprocess.Popen(
        [*command, "--processes", str(processes)],
        stdout=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )


@contextmanager
def worker() -> Iterator[None]:
    """Let a worker run meanwhile."""
    started = start_worker()
    try:
        yield
    finally:
        started.terminate()
        started.wait(60)
