"""A template version's files: packed into the database once, unpacked where they are needed."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from django.conf import settings

from provisioning.exceptions import ConductorError
from provisioning.models import ResourceTemplateVersion
from provisioning.services.catalog.problems import CatalogError

MAX_BYTES = 20_000_000
MAX_FILES = 2_000
LEFT_OUT_FOLDERS = {".git", ".terraform", "__pycache__", ".hg", ".svn"}
LEFT_OUT_FILES = {".DS_Store", "terraform.tfstate", "terraform.tfstate.backup"}


class DamagedContentError(ConductorError):
    """Say that a stored archive is not what its digest says."""


@dataclass(frozen=True, slots=True)
class ContentFile:
    """Hold one file; `name` is its path below the template's folder, with slashes."""

    name: str
    executable: bool
    data: bytes


@dataclass(frozen=True, slots=True)
class Content:
    """Hold a template's files as a tar archive, and the digest of their names and bytes."""

    archive: bytes
    digest: str


def pack(folder: Path) -> Content:
    """Pack every file of a template's folder; equal folders give equal archives.

    Version control's and Terraform's own folders and state files are left out. Raise CatalogError
    for a link that leaves the folder, anything that is not a file, or too much of it.
    """
    files = _read(folder)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for file in files:
            member = tarfile.TarInfo(file.name)
            member.size = len(file.data)
            member.mode = 0o755 if file.executable else 0o644
            archive.addfile(member, io.BytesIO(file.data))
    return Content(stream.getvalue(), digest_of(files))


def digest_of(files: Iterable[ContentFile]) -> str:
    """Return `sha256:…` over the names, the modes and the bytes of files, in the names' order."""
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.name):
        mode = "x" if file.executable else "-"
        digest.update(f"{mode} {len(file.data)} {file.name}\0".encode())
        digest.update(file.data)
    return f"sha256:{digest.hexdigest()}"


def unpack(version: ResourceTemplateVersion) -> Path:
    """Return a read-only folder with the version's files, unpacked at the first call.

    The folder is named after the digest, so versions and processes share it, and it is put in place
    whole by a rename. Raise DamagedContentError if the archive does not fit its digest.
    """
    root = Path(settings.VAR_DIR) / "templates"
    folder = root / version.digest.removeprefix("sha256:")
    if folder.is_dir():
        return folder
    files = _members(version)
    if digest_of(files) != version.digest:
        raise DamagedContentError(
            f"The stored content of template version {version} does not fit its digest "
            f"{version.digest}: it was changed in the database. Restore it from a backup."
        )
    root.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=root, prefix=".unpacking-"))
    try:
        _write(files, draft)
        draft.rename(folder)
    except OSError:
        # Another process may have been faster: its folder is the same.
        if not folder.is_dir():
            raise
    finally:
        if draft.exists():
            _remove(draft)
    return folder


def _read(folder: Path) -> list[ContentFile]:
    root = folder.resolve()
    files: list[ContentFile] = []
    size = 0
    for path in sorted(_paths(root), key=lambda path: path.relative_to(root).as_posix()):
        name = path.relative_to(root).as_posix()
        target = _checked(path, root, name)
        size += target.stat().st_size
        if size > MAX_BYTES or len(files) >= MAX_FILES:
            raise CatalogError(
                f"The template's folder {folder} is too large: at most {MAX_FILES:,} files with "
                f"{MAX_BYTES:,} bytes in all. Keep only what the driver needs in it."
            )
        executable = bool(target.stat().st_mode & stat.S_IXUSR)
        try:
            files.append(ContentFile(name, executable, target.read_bytes()))
        except OSError as error:
            raise CatalogError(f"{name} in {folder} cannot be read: {error.strerror}.") from error
    return files


def _checked(path: Path, root: Path, name: str) -> Path:
    """Return the file that a path leads to, within the folder and with a name in UTF-8."""
    target = path.resolve()
    if not name.isprintable():
        raise CatalogError(f"The name {name!a} in {root} is not printable UTF-8; rename it.")
    if not target.is_relative_to(root):
        raise CatalogError(f"{name} in {root} is a link to outside of the template's folder.")
    if not target.is_file():
        raise CatalogError(f"{name} in {root} is neither a file nor a link to one.")
    return target


def _paths(root: Path) -> Iterable[Path]:
    for parent, folders, names in os.walk(root):
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        folders[:] = [name for name in folders if name not in LEFT_OUT_FOLDERS | set(links)]
        for name in [*names, *links]:
            if name not in LEFT_OUT_FILES:
                yield Path(parent) / name


def _members(version: ResourceTemplateVersion) -> list[ContentFile]:
    """Read the stored archive, trusting none of its names."""
    files: list[ContentFile] = []
    try:
        with tarfile.open(fileobj=io.BytesIO(bytes(version.archive))) as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                stream = archive.extractfile(member) if member.isreg() else None
                if stream is None or name.is_absolute() or ".." in name.parts:
                    raise DamagedContentError(
                        f"The stored content of template version {version} holds {member.name}, "
                        "which is no plain file below the template's folder."
                    )
                files.append(ContentFile(member.name, bool(member.mode & 0o100), stream.read()))
    except tarfile.TarError as error:
        raise DamagedContentError(
            f"The stored content of template version {version} is no tar archive: {error}."
        ) from error
    return files


def _write(files: Iterable[ContentFile], folder: Path) -> None:
    for file in files:
        path = folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.data)
        path.chmod(0o555 if file.executable else 0o444)
    for parent, _, _ in os.walk(folder, topdown=False):
        Path(parent).chmod(0o555)


def _remove(folder: Path) -> None:
    for parent, _, _ in os.walk(folder):
        Path(parent).chmod(0o755)
    shutil.rmtree(folder)
