"""A tool's folder and the one beside it, by which its worker knows of it.

The worker may be root, and the tool is whatever a template's author wrote: in the folder that it can
write to it may put links, pipes and files without end where the worker looks. Hence the worker opens
there only what `read_left` and `write_private` open, and keeps what it relies on beside.
"""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from provisioning.drivers.base import DriverError

MOST_BYTES = 256 * 1024 * 1024
"""A larger file that a tool left is read by nobody: it would have to fit into memory."""
_SAFE = os.O_NOFOLLOW | os.O_CLOEXEC


def control_folder(folder: Path) -> Path:
    """Return the folder beside a tool's folder, which the tool cannot write to where it has a sandbox."""
    return folder.with_name(f"{folder.name}.run")


def lease_file(folder: Path) -> Path:
    """Return where the worker of a work folder says until when it holds the step."""
    return control_folder(folder) / "lease"


def said_folder(folder: Path) -> Path:
    """Return where the supervisor, who is no more trusted than its tool, says what became of it."""
    return control_folder(folder) / "said"


def credentials_folder(folder: Path) -> Path:
    """Return where credentials lie that the tools of a work folder read from files."""
    return control_folder(folder) / "credentials"


def make_control_folder(folder: Path) -> Path:
    """Make the folder beside a tool's folder, if it is not there, and return it."""
    control = control_folder(folder)
    control.mkdir(mode=0o711, parents=True, exist_ok=True)
    return control


def remove_folder(folder: Path) -> None:
    """Remove a tool's folder and the one beside it; links in them are not followed."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(control_folder(folder), ignore_errors=True)


def read_left(path: Path, most: int = MOST_BYTES) -> bytes:
    """Read a file that a tool may have left, of so many bytes at most.

    Raises FileNotFoundError, and DriverError for what is no file of its own: a link, a pipe, too large.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | _SAFE)
    except FileNotFoundError:
        raise
    except OSError as error:  # a link, or the end of a pipe that nobody writes to
        raise _not_a_file(path) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise _not_a_file(path)
        if status.st_size > most:
            message = f"{path.name} has {status.st_size:,} bytes: more than {most:,} are not read."
            raise DriverError(message, permanent=True)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(most)
    finally:
        os.close(descriptor)


def remove_left(path: Path) -> None:
    """Remove whatever lies there, if anything does; a link is not followed."""
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(path.lstat().st_mode):
            shutil.rmtree(path)
        else:
            path.unlink()


def write_private(path: Path, content: bytes) -> None:
    """Write a file at once that only its owner can read, whatever lies there."""
    temporary = path.with_name(f".{path.name}.new")
    remove_left(temporary)
    if path.is_dir() and not path.is_symlink():
        remove_left(path)
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | _SAFE, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    temporary.replace(path)


def _not_a_file(path: Path) -> DriverError:
    message = (
        f"{path.name} in the tool's folder is no file of its own: what it leads to is not read."
    )
    return DriverError(message, permanent=True)
