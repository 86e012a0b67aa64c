"""The server's processes: which runs on a data folder, and how one is started."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import IO

import psutil

from conductor.embedded.files import Place
from conductor.embedded.owner import Owner, clean_environment

_children: list[subprocess.Popen[bytes]] = []
"""Servers started by this process; kept so that Python reaps one that ends."""


def spawn(place: Place, owner: Owner, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start PostgreSQL in a session of its own, so that it outlives this command."""
    child = subprocess.Popen(
        [place.programs / "postgres", "-D", place.data],
        cwd="/",
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        **owner.identity(),
    )
    _children.append(child)
    return child


def find_postmaster(data: Path) -> psutil.Process | None:
    """Return the running server of a data folder; a stale file or a reused process id is none."""
    try:
        pid = int((data / "postmaster.pid").read_text().splitlines()[0])
        process = psutil.Process(pid)
        is_server = str(data) in process.cmdline()[1:]
        return process if is_server and process.status() != psutil.STATUS_ZOMBIE else None
    except (OSError, ValueError, IndexError, psutil.Error):
        return None


def has_ended(process: psutil.Process) -> bool:
    """Tell whether a process has ended, also if nobody has asked for its exit status yet."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def is_ready(data: Path) -> bool:
    """Tell whether the server of a data folder runs and takes connections."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return False
    return len(lines) > 7 and lines[7].strip() == "ready" and find_postmaster(data) is not None


def forget_dead_postmaster(place: Place) -> None:
    """Remove the marks of a server that was killed: its number may be another process's by now."""
    if find_postmaster(place.data) is None:
        for mark in (place.data / "postmaster.pid", *place.sockets.glob(".s.PGSQL.*")):
            mark.unlink(missing_ok=True)
