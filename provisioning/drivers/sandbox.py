"""Shut a tool off from what is not its business: other folders, processes, users and privileges.

The tool and its supervisor run in one sandbox, so that the supervisor is the tool's parent in every
respect. Which one is the first of these that works on this host:

* `bubblewrap`: the tool sees its work folder, the system's programs and what its driver shows it, in
  a process namespace of its own; the network stays.
* `setpriv`: it gains no privileges by whatever it starts, and runs within resource limits (as in
  bubblewrap); it sees what its user may see.

Where the worker is root, the tool runs as a user of its own, chosen by its folder, without
capabilities. CONDUCTOR_SANDBOX chooses one by name or turns it off (`none`); CONDUCTOR_SANDBOX_PATHS
names more paths to show, separated by colons, those ending in `=rw` to write in as well.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from provisioning.drivers.base import DriverError

BUBBLEWRAP, SETPRIV, NONE, AUTO = "bubblewrap", "setpriv", "none", "auto"
KINDS = (AUTO, BUBBLEWRAP, SETPRIV, NONE)

USERS = range(0x7E00_0000, 0x7F00_0000)
"""Ids that nobody else gives away, so many that two tools hardly ever share one.

systemd leaves 1879048192 to 2147352575 unused (systemd, "Users, Groups, UIDs and GIDs"), containers of
users get ids up to 600100000 (login.defs(5), SUB_UID_MAX), and sssd maps a domain's to ids up to
2000200000 (sssd-ldap(5), ldap_idmap_range_max).
"""
FEWER_USERS = range(60600, 61100)
"""The same for a container of 65536 ids: two resources of 27 share one as often as not."""

LIMITS: dict[str, int] = {"core": 0, "nofile": 8192, "fsize": 8 * 1024**3}
"""Most of each for a tool: core dumps and files in bytes, open files."""
MEMORY, PROCESSES = "CONDUCTOR_TOOL_MEMORY", "CONDUCTOR_TOOL_PROCESSES"
DEFAULTS = {MEMORY: 4096, PROCESSES: 2048}
"""MiB for the data of each process, and how many processes a tool's own user may have; 0: no limit."""
_STARVED = re.compile(
    r"out of memory|cannot allocate memory|MemoryError|bad_alloc"
    # A lock that somebody else holds is called "resource temporarily unavailable" as well.
    r"|fork[^\n]*resource temporarily unavailable|\[errno 11\]|cannot fork|newosproc|new thread",
    re.IGNORECASE,
)

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_CONFIGURATION = (
    "/etc/alternatives", "/etc/ca-certificates", "/etc/group", "/etc/hosts", "/etc/ld.so.cache",
    "/etc/localtime", "/etc/nsswitch.conf", "/etc/passwd", "/etc/pki", "/etc/resolv.conf",
    "/etc/ssl",
)  # fmt: skip
_TRIAL = "open('tried', 'w').close()"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Wrap a command line, for one kind of sandbox."""

    kind: str
    own_user: bool

    def __str__(self) -> str:
        return f"{self.kind}, own user" if self.own_user else self.kind

    def weakness(self) -> str:
        """Say what a tool reaches that it should not, as a sentence; "" if it is shut off well."""
        if os.geteuid() == 0 and not self.own_user:
            return "Tools run as root here and can read and change everything on this host."
        if self.kind == BUBBLEWRAP:
            return ""
        if self.own_user:
            return "Tools see whatever any user of this host may see."
        return "Tools can read what the worker can, its keys and its database's address included."

    def wrap(
        self,
        arguments: Sequence[str],
        *,
        folder: Path,
        readable: Sequence[Path] = (),
        writable: Sequence[Path] = (),
    ) -> list[str]:
        """Return the words that run the arguments shut off, and give the user what it writes in.

        `folder` is the tool's own; `readable` and `writable` name what else it needs to see.
        """
        if self.kind == NONE:
            return list(arguments)
        more, more_writable = _chosen_paths()
        writable = [folder, *writable]
        if self.own_user:
            for path in writable:
                _give(path, user_of(folder), user_of(folder))
        words = self._privileges(user_of(folder) if self.own_user else None)
        if self.kind == BUBBLEWRAP:
            seen = [*readable, *more, Path(sys.base_prefix)]
            words = [*_bubblewrap(seen, [*more_writable, *writable], folder), *words]
        return [*words, *arguments]

    def _privileges(self, user: int | None) -> list[str]:
        words = ["setpriv", "--no-new-privs"]
        limits = dict(LIMITS)
        if user is not None:
            words += ["--reuid", str(user), "--regid", str(user), "--clear-groups"]
            words += ["--bounding-set=-all", "--inh-caps=-all"]
            limits |= {"nproc": most(PROCESSES)} if most(PROCESSES) else {}
        # Not the address space: Go reserves far more of that than it ever uses.
        limits |= {"data": most(MEMORY) * 1024**2} if most(MEMORY) else {}
        return [
            *words,
            "--",
            "prlimit",
            *(f"--{name}={limit}" for name, limit in limits.items()),
            "--",
        ]


def most(variable: str) -> int:
    """Return a limit that the operator may have set; raise DriverError if it is no number."""
    text = os.environ.get(variable, "").strip()
    if text and not (text.isascii() and text.isdigit()):
        raise DriverError(f"{variable} must be a whole number, and is {text!r}.", permanent=True)
    return int(text or DEFAULTS[variable])


def is_starved(text: str) -> bool:
    """Tell whether a line of a tool's output says that it got no more memory or processes."""
    return _STARVED.search(text) is not None


def starved_hint(folder: Path) -> str:
    """Return a sentence about the limits for the error of a tool that seems to have run into one."""
    sandbox = find_sandbox(folder)
    limits = []
    if sandbox.kind != NONE and most(MEMORY):
        limits.append(f"{most(MEMORY)} MiB of memory in each process ({MEMORY})")
    if sandbox.own_user and most(PROCESSES):
        limits.append(f"{most(PROCESSES)} processes ({PROCESSES})")
    if not limits:
        return "It ran out of memory or processes: its host has no more to give."
    return (
        f"It ran out of memory or processes, of which tools may use {' and '.join(limits)}: let it do "
        "less at once, or raise the limit on the worker."
    )


def user_of(folder: Path) -> int:
    """Return the id of the user as whom the tools in a folder run, the same each time."""
    users = _users()
    return users[zlib.crc32(os.fsencode(folder)) % len(users)]


def sole_user_of(folder: Path, work_folder: Path) -> int | None:
    """Return the id of the user that the tools in a folder have to themselves, if they have one."""
    own = find_sandbox(work_folder).own_user and _users() == USERS
    return user_of(folder) if own else None


@cache
def _users() -> range:
    """Return the ids to choose from, which must all exist in the namespace that this process is in."""
    uid_map = Path("/proc/self/uid_map")
    return users_in(uid_map.read_text()) if uid_map.exists() else FEWER_USERS


def users_in(uid_map: str) -> range:
    """Return the ids to choose from in a namespace with such a map (user_namespaces(7))."""
    for line in uid_map.splitlines():
        first, _, count = (int(word) for word in line.split())
        if first <= USERS[0] and USERS[-1] < first + count:
            return USERS
    return FEWER_USERS


def take_back(folder: Path) -> None:
    """Make a folder that a tool has written the worker's own, for all to read and for nobody else to write."""
    _give(folder, os.geteuid(), os.getegid())
    for parent, _, files in os.walk(folder):
        os.chmod(parent, 0o755)  # noqa: S103 -- what secrets there are, are values in work folders
        for name in files:
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                os.chmod(path, 0o755 if os.stat(path).st_mode & 0o111 else 0o644)


def find_sandbox(work_folder: Path) -> Sandbox:
    """Return the sandbox for tools below a folder; raise DriverError if the one asked for fails."""
    return _find(os.environ.get("CONDUCTOR_SANDBOX") or AUTO, work_folder.parent)


@cache
def _find(wanted: str, parent: Path) -> Sandbox:
    if wanted not in KINDS:
        message = f"CONDUCTOR_SANDBOX must be one of {', '.join(KINDS)}, and is {wanted!r}."
        raise DriverError(message, permanent=True)
    kinds = [BUBBLEWRAP, SETPRIV] if wanted == AUTO else [wanted]
    for kind in kinds:
        for own_user in (True, False) if os.geteuid() == 0 and kind != NONE else (False,):
            sandbox = Sandbox(kind, own_user)
            if kind == NONE or _works(sandbox, parent):
                return sandbox
    if wanted != AUTO:
        raise DriverError(
            f"CONDUCTOR_SANDBOX is {wanted}, which does not work on this worker's host.",
            permanent=True,
        )
    return Sandbox(NONE, own_user=False)


def _works(sandbox: Sandbox, parent: Path) -> bool:
    parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix="sandbox-") as name:
        folder = Path(name)
        inside = f"import os; os.chdir({name!r}); {_TRIAL}"
        words = sandbox.wrap([python(), "-I", "-S", "-c", inside], folder=folder)
        if shutil.which(words[0]) is None:
            return False
        subprocess.run(words, capture_output=True, check=False)
        return (folder / "tried").exists()


def python() -> str:
    """Return the interpreter itself, which needs nothing of the virtual environment around it."""
    return os.path.realpath(sys.executable)


def _bubblewrap(readable: Sequence[Path], writable: Sequence[Path], folder: Path) -> list[str]:
    words = ["bwrap", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--cap-drop", "ALL"]
    if os.geteuid() == 0:
        for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
            words += ["--cap-add", capability]
    else:
        words += ["--unshare-user"]
    for name in _SYSTEM:
        path = Path(name)
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), name]
        elif path.is_dir():
            words += ["--ro-bind", name, name]
    for name in _CONFIGURATION:
        words += ["--ro-bind-try", os.path.realpath(name), name]
    words += ["--dev", "/dev", "--proc", "/proc", "--perms", "1777", "--tmpfs", "/tmp"]  # noqa: S108
    made: set[Path] = {Path(name) for name in ("/", "/tmp", "/etc", *_SYSTEM)}  # noqa: S108
    for how, paths in (("--ro-bind", readable), ("--bind", writable)):
        for path in paths:
            if how == "--bind" or not path.is_relative_to("/usr"):
                words += [*_parents(path, made), how, str(path), str(path)]
    return [*words, "--"]


def _parents(path: Path, made: set[Path]) -> Iterator[str]:
    """Make the folders above a path: those that bubblewrap makes by itself only root may enter."""
    for parent in reversed(path.parents):
        if parent not in made:
            made.add(parent)
            yield from ("--perms", "0755", "--dir", str(parent))


def _chosen_paths() -> tuple[list[Path], list[Path]]:
    words = [word for word in os.environ.get("CONDUCTOR_SANDBOX_PATHS", "").split(":") if word]
    writable = [Path(word.removesuffix("=rw")) for word in words if word.endswith("=rw")]
    return [Path(word) for word in words if not word.endswith("=rw")], writable


def _give(path: Path, user: int, group: int) -> None:
    """Make a user the owner of a folder and of all in it; links are not followed."""
    os.lchown(path, user, group)
    for parent, folders, files in os.walk(path):
        for name in (*folders, *files):
            os.lchown(os.path.join(parent, name), user, group)
