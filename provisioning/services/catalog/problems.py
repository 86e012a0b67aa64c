"""What refuses a catalogue, and the remedies its messages name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from provisioning.exceptions import ConductorError
from provisioning.score.workload import Problem


class CatalogError(ConductorError):
    """Refuse a source or a template; `problems` has every reason that has a place in a file."""

    def __init__(self, message: str = "", problems: Sequence[Problem] = ()) -> None:
        self.problems = sorted(problems, key=lambda problem: (problem.file, problem))
        super().__init__(message or "\n".join(str(problem) for problem in self.problems))


def likely(name: object, known: Iterable[str], *, otherwise: str = "") -> str:
    """Return "did you mean …?" with the nearest known name, or another hint."""
    close = get_close_matches(str(name), list(known), n=1)
    return f"did you mean {close[0]}?" if close else otherwise
