"""Counters that only grow: counted from audit events, which nothing can delete.

Once a minute the events since the last time are added to the rows of `Figure`; a reader adds the few
that came after. So a scrape costs little however much has happened, and no retention of logs, states
or workers makes a counter go back. Durations are those of the deployment or step that an event ended.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from django.db import connection, transaction

from provisioning.models import Figure
from provisioning.models.audit import DATABASE_LOST
from provisioning.models.deployments import TERMINAL_STATUSES
from provisioning.models.figures import COUNTED_THROUGH
from provisioning.models.steps import UNFINISHED_STEP_STATUSES

BUCKETS = [0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0]
"""Upper bounds, in seconds, of the classes in which durations are counted."""
BATCH = 50_000
SETTLED_SECONDS = 300.0
"""An event is counted for good when it is so old: events do not become visible in the order of ids."""

_COUNTED = Path(__file__).with_name("counted.sql").read_text(encoding="utf-8")
_READ_SQL = f"""
WITH bound AS (
    SELECT COALESCE(max(value), 0)::bigint AS low, 9223372036854775807 AS high
    FROM provisioning_figure WHERE name = %(mark)s
),
{_COUNTED}
SELECT name, labels, sum(value) FROM (
    SELECT name, labels, value FROM provisioning_figure WHERE name <> %(mark)s
    UNION ALL
    SELECT name, labels, value FROM counted
) both_parts
GROUP BY name, labels ORDER BY name, labels
"""  # noqa: S608 - constant text
_ADD_SQL = f"""
WITH bound AS (SELECT %(low)s::bigint AS low, %(high)s::bigint AS high),
{_COUNTED}
INSERT INTO provisioning_figure (name, labels, value) SELECT name, labels, value FROM counted
ON CONFLICT (name, labels) DO UPDATE SET value = provisioning_figure.value + EXCLUDED.value
"""  # noqa: S608
_SETTLED_SQL = """
SELECT max(id) FROM (
    SELECT id FROM provisioning_auditevent
    WHERE id > %(low)s AND at < clock_timestamp() - make_interval(secs => %(seconds)s)
    ORDER BY id LIMIT %(most)s
) settled
"""
_WORDS: dict[str, Any] = {
    "terminal": [str(status) for status in TERMINAL_STATUSES],
    "unfinished": [str(status) for status in UNFINISHED_STEP_STATUSES],
    "database_lost": DATABASE_LOST,
    "buckets": BUCKETS,
    "mark": COUNTED_THROUGH,
}


class Counter(NamedTuple):
    """Hold one counter's value."""

    name: str
    labels: Mapping[str, str]
    value: float


def read_counters() -> list[Counter]:
    """Return every counter that is not 0, all of one moment."""
    with connection.cursor() as cursor:
        cursor.execute(_READ_SQL, _WORDS)
        return [Counter(name, json.loads(labels), value) for name, labels, value in cursor]


def count_events(settled_seconds: float = SETTLED_SECONDS) -> None:
    """Add the events of the past to the stored figures, BATCH at a time."""
    while _count_batch(settled_seconds):
        pass


def _count_batch(settled_seconds: float) -> bool:
    with transaction.atomic():
        Figure.objects.get_or_create(name=COUNTED_THROUGH, labels={}, defaults={"value": 0})
        mark = Figure.objects.select_for_update().get(name=COUNTED_THROUGH)
        low = int(mark.value)
        with connection.cursor() as cursor:
            cursor.execute(_SETTLED_SQL, {"low": low, "seconds": settled_seconds, "most": BATCH})
            (high,) = cursor.fetchone()
            if high is None:
                return False
            cursor.execute(_ADD_SQL, {**_WORDS, "low": low, "high": high})
        mark.value = high
        mark.save(update_fields=["value"])
    return True
