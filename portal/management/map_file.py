"""Files that hold one map of names to values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from portal.management.base import UsageError
from provisioning.score.reader import read


def map_in(path: str) -> Mapping[str, Any]:
    """Read a file that holds one map, as YAML or JSON; raise UsageError, without any value."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text (byte {error.start}).") from error
    documents = list(read(text))
    if len(documents) != 1 or documents[0].problems or not isinstance(documents[0].value, dict):
        raise UsageError(f"{path} must hold one map of names to values, as YAML or JSON.")
    value: dict[str, Any] = documents[0].value
    return value
