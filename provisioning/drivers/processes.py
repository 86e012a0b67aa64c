"""Name processes of this host so that no other one, now or later, has the same name."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path

import psutil


def identity(pid: int | None = None) -> str:
    """Return a process's id (default: this one's) and when it began; raise psutil.NoSuchProcess.

    The beginning is counted from the host's start, which is named with it: a clock that is set does not
    change that, as it would change a time of day (proc_pid_stat(5), `starttime`).
    """
    pid = os.getpid() if pid is None else pid
    if sys.platform != "linux":
        return f"{pid} {psutil.Process(pid).create_time()}"
    return f"{pid} {_fields(pid)[19]}@{_boot()}"


def is_alive(named: str) -> bool:
    """Tell whether a process that `identity` has named still runs; one that only waits to be reaped does not."""
    pid = named.partition(" ")[0]
    try:
        if sys.platform == "linux" and _fields(int(pid))[0] == "Z":
            return False
        return identity(int(pid)) == named
    except (ValueError, psutil.Error):
        return False


def _fields(pid: int) -> list[str]:
    """Return what the kernel says of a process after its name, which may hold anything."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError as error:
        raise psutil.NoSuchProcess(pid) from error
    return text.rpartition(")")[2].split()


@cache
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
