"""Tell whoever watches a deployment that there is something new to read.

News name what has changed and nothing else, and travel by NOTIFY on one channel: in the transaction
that made them, so nobody hears of what cannot be seen yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from django.db import connection

CHANNEL = "conductor_deployments"
MOST_STEPS = 1000
"""Who has more steps to look at may as well look at everything."""


@dataclass
class News:
    """Gather what of one deployment may have changed: some of its steps and their logs, or everything."""

    everything: bool = False
    steps: set[int] = field(default_factory=set)

    def add(self, step: int | None) -> None:
        """Note that a step, or with None the deployment itself, has changed."""
        if step is not None:
            self.steps.add(step)
        self.everything = self.everything or step is None or len(self.steps) > MOST_STEPS
        if self.everything:
            self.steps.clear()

    def __bool__(self) -> bool:
        return self.everything or bool(self.steps)


def announce(changed: Iterable[tuple[int, int | None]]) -> None:
    """Tell of changed deployments, each with its step or None, when the transaction commits."""
    payloads = sorted({f"{deployment} {step or ''}".strip() for deployment, step in changed})
    if payloads:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(pg_notify(%s, payload)) FROM unnest(%s::text[]) AS payload",
                [CHANNEL, payloads],
            )


def announced(payload: str) -> tuple[int, int | None]:
    """Return what was announced: the deployment, and its step or None."""
    deployment, _, step = payload.partition(" ")
    return int(deployment), int(step) if step else None
