from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured


@dataclass(frozen=True, slots=True)
class Owner:
    """The user who runs the server: PostgreSQL refuses root, so root lends it to `nobody`."""

    uid: int
    gid: int
    lent: bool

    @classmethod
    def current(cls) -> Owner:
        """Return who runs a server that this process starts."""
        if os.geteuid() != 0:
            return cls(os.geteuid(), os.getegid(), lent=False)
        try:
            nobody = pwd.getpwnam("nobody")
        except KeyError:
            return cls(65534, 65534, lent=True)
        return cls(nobody.pw_uid, nobody.pw_gid, lent=True)

    def identity(self) -> dict[str, Any]:
        """Return the arguments of `subprocess` that make a child run as this user."""
        if not self.lent:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a short command as this user, outside any folder it may not be allowed to see."""
        return subprocess.run(
            [str(word) for word in command],
            cwd="/",
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            **self.identity(),
        )

    def can_enter(self, folder: Path) -> bool:
        """Tell whether this user gets into a folder."""
        return self.run("/bin/sh", "-c", 'cd -- "$1"', "sh", folder).returncode == 0

    def can_run(self, program: Path) -> bool:
        """Tell whether this user can start a program."""
        try:
            return self.run(program, "--version").returncode == 0
        except OSError:
            return False

    def give(self, path: Path, *, mode: int) -> None:
        """Make a file or folder that this process created belong to this user alone."""
        if self.lent:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)
        path.chmod(mode)

    def require_private(self, folder: Path) -> None:
        """Refuse a folder that is not a real one of this user, closed to everybody else."""
        status = folder.lstat()
        if folder.is_symlink() or status.st_uid != self.uid or status.st_mode & 0o077:
            raise ImproperlyConfigured(
                f"The embedded PostgreSQL cannot use {folder}: it must be a folder (not a link) that "
                f"belongs to user id {self.uid} with mode 0700. Was it made by another user? Run "
                "Conductor as that user, or set CONDUCTOR_VAR_DIR to another folder."
            )


def clean_environment() -> dict[str, str]:
    """Return the environment of the server and its tools: nothing of the caller's reaches them."""
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
