"""Where a catalogue comes from: a folder, or a git repository at one commit."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from provisioning.services.catalog.address import SCP_LIKE, check_address, settled_host
from provisioning.services.catalog.content import LEFT_OUT_FOLDERS
from provisioning.services.catalog.problems import CatalogError
from provisioning.services.catalog.template_file import FILE_NAME

GIT_SECONDS = 120
MAX_ADDRESS = 400
WITH_SCHEME = re.compile(r"\A[A-Za-z][A-Za-z0-9+.-]*:(?://|:)")
# What git and ssh need; Conductor's own secrets are not among it.
PASSED_ON = re.compile(
    r"\A(PATH|HOME|USER|LOGNAME|LANG|LC_\w+|TMPDIR|XDG_CONFIG_HOME|SSH_AUTH_SOCK|SSL_CERT_\w+|"
    r"GIT_SSL_\w+|GIT_SSH|GIT_SSH_COMMAND|GIT_ASKPASS|(?i:https?|no|all)_PROXY)\Z",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Source:
    """Hold a folder with templates; `label` is kept with each version as its source."""

    folder: Path
    label: str
    shown: str

    def template_files(self) -> list[tuple[Path, str]]:
        """Return every `template.yaml` with its name for messages; raise CatalogError for none."""
        if self.folder.is_file():
            return [(self.folder, self.shown)]
        found = sorted(_template_files(self.folder))
        if not found:
            raise CatalogError(f"There is no {FILE_NAME} under {self.shown}.")
        shown = "" if self.shown == "." else self.shown.rstrip("/") + "/"
        return [(path, f"{shown}{path.relative_to(self.folder).as_posix()}") for path in found]


@contextmanager
def opened(source: str) -> Iterator[Source]:
    """Give a source's folder: PATH itself, or GIT_URL[@REF] cloned for as long as it is used.

    Raise CatalogError for what is neither, or if git cannot get it within two minutes.
    """
    if not source or source.startswith("-"):
        raise CatalogError(f"{source!r} is neither a path nor the address of a git repository.")
    if len(source) > MAX_ADDRESS or not source.isprintable():
        raise CatalogError(f"The source must be printable and at most {MAX_ADDRESS} characters.")
    path = Path(source)
    if path.exists() and not _is_bare_repository(path):
        if path.is_file() and path.name != FILE_NAME:
            raise CatalogError(f"{source} is not a folder, nor a file called {FILE_NAME}.")
        yield Source(path, str(path.resolve())[:500], source)
        return
    url, ref = _repository(source)
    with tempfile.TemporaryDirectory(prefix="conductor-catalog-") as folder_name:
        commit = _fetch(url, ref, Path(folder_name))
        yield Source(Path(folder_name), f"{url}@{commit}", f"{url}@{commit[:12]}")


def _template_files(root: Path) -> Iterator[Path]:
    """Find templates; what lies below one belongs to it."""
    for parent, folders, names in os.walk(root):
        if FILE_NAME in names:
            folders.clear()
            yield Path(parent) / FILE_NAME
        folders[:] = [name for name in folders if name not in LEFT_OUT_FOLDERS]


def _is_bare_repository(path: Path) -> bool:
    return (path / "HEAD").is_file() and (path / "objects").is_dir()


def _repository(source: str) -> tuple[str, str]:
    """Take `GIT_URL[@REF]` apart; a local repository becomes a file address."""
    if WITH_SCHEME.match(source) or SCP_LIKE.match(source):
        path_at = source.find("/", source.find("://") + 3) if "://" in source else source.find(":")
        path, _, ref = source[max(path_at, 0) :].partition("@")
        url = source[: max(path_at, 0)] + path
        check_address(url)
        return url, _checked_ref(ref, given="@" in source[max(path_at, 0) :])
    name, at, ref = source.rpartition("@")
    path_name = name if at else source
    if not Path(path_name).is_dir():
        raise CatalogError(
            f"There is no folder {source}. Name a folder, or a git repository such as "
            "https://git.example.org/platform/catalog.git@v1."
        )
    return Path(path_name).resolve().as_uri(), _checked_ref(ref if at else "", given=bool(at))


def _checked_ref(ref: str, *, given: bool) -> str:
    if not given:
        return "HEAD"
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_./+-]*", ref) or ".." in ref:
        raise CatalogError(f"{ref!r} is not a branch, a tag or a commit.")
    return ref


def _fetch(url: str, ref: str, folder: Path) -> str:
    """Check out one commit without its history, and return its id."""
    _git(["init", "--quiet", "--template=", str(folder)], url)
    inside = ["-C", str(folder)]
    held = "" if url.startswith("file:") else settled_host(url)
    fetch = [*inside, "fetch", "--quiet", "--depth=1", "--no-tags", "--", url, ref]
    _git(fetch, url, held)
    _git([*inside, "checkout", "--quiet", "--detach", "FETCH_HEAD"], url)
    return _git([*inside, "rev-parse", "HEAD"], url).strip()


def _git(arguments: Sequence[str], url: str, held: str = "") -> str:
    protocols = "file" if url.startswith("file:") else "https:ssh"
    environment = {name: value for name, value in os.environ.items() if PASSED_ON.match(name)}
    environment |= {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": protocols,
        "GIT_LFS_SKIP_SMUDGE": "1",
        "LC_ALL": "C",
    }
    environment.setdefault("GIT_SSH_COMMAND", "ssh -oBatchMode=yes")
    safe = ["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false"]
    if held:
        safe += ["-c", f"http.curloptResolve={held}", "-c", "http.followRedirects=false"]
    try:
        done = subprocess.run(
            ["git", *safe, *arguments],  # noqa: S607 -- the git of the PATH
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=GIT_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise CatalogError("git is not installed, so its repositories cannot be read.") from error
    except subprocess.TimeoutExpired as error:
        raise CatalogError(f"git did not get {url} within {GIT_SECONDS} seconds.") from error
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise CatalogError(f"git cannot read {url}: {said}")
    return done.stdout
