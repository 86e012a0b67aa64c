"""What several processes did and were told."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Diary:
    """What everybody did and was told, noted outside the database: a line of JSON each."""

    path: Path

    def note(self, **entry: Any) -> None:
        """Add an entry."""
        line = json.dumps(entry) + "\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def entries(self, *actions: str) -> list[dict[str, Any]]:
        """Return the entries of what was done, without the refusals, in order of their end."""
        return [row for row in self._rows() if row["did"] in actions and "refused" not in row]

    def refusals(self) -> list[tuple[str, str]]:
        """Return (what was tried, what was told)."""
        return [(row["did"], row["refused"]) for row in self._rows() if "refused" in row]

    def _rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]
