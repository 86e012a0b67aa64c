"""Secrets of the embedded default: made once, kept in the var folder, readable by their owner."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import SimpleLazyObject


class LaterKey(SimpleLazyObject):
    """Stand for a secret that is made or read at its first use; asking whether it is set is none.

    Django and django-q2 ask that while they start, which a command without secrets survives thus
    in a folder that it may not write to.
    """

    def __bool__(self) -> bool:
        return True


def make_folder(folder: Path) -> Path:
    """Create a folder that others may pass through, not list; one that exists is left as it is."""
    if not folder.is_dir():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o711)
        except OSError as error:
            raise ImproperlyConfigured(
                f"Conductor cannot create the folder {folder} ({error.strerror}). "
                "Set CONDUCTOR_VAR_DIR to a folder that it may write to."
            ) from error
    return folder


def kept(path: Path, make: Callable[[], str] = lambda: secrets.token_urlsafe(48)) -> str:
    """Return the secret in a file, made first if there is none; of two makers at once one wins."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ImproperlyConfigured(
            f"Conductor cannot read {path} ({error.strerror}); run it as the user who owns that "
            "file, or set CONDUCTOR_VAR_DIR to a folder of your own."
        ) from error
    make_folder(path.parent)
    try:
        descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    except OSError as error:
        raise ImproperlyConfigured(
            f"Conductor cannot write to {path.parent} ({error.strerror}). "
            "Set CONDUCTOR_VAR_DIR to a folder that it may write to."
        ) from error
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(make())
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        Path(draft).unlink()
    return path.read_text().strip()
