"""The advisory locks under which decisions are made, taken before any row lock.

The order is: organisation, environment, Deployment, Resource by id, Step by id, Consumer. A claim
locks one Step only, then the limits of its environment and of its template; the end of a step locks
its Resource, then Steps. Whoever keeps to it cannot deadlock. Row locks are `no_key`, so that rows which merely refer to a locked one can be inserted.
"""

from __future__ import annotations

import hashlib

from django.db import connection

from provisioning.models import Environment, ResourceTemplate


def lock_environment(environment: Environment) -> None:
    """Hold the right to decide in an environment until the current transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock_shared(%s)",
            [_number("organisation", environment.organisation_id)],
        )
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_number("environment", environment.pk)])


def lock_limit(limited: Environment | ResourceTemplate) -> None:
    """Hold the right to count what runs in an environment, or of a template, likewise."""
    kind = f"limit of {limited._meta.model_name}"
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_number(kind, limited.pk)])


def _number(kind: str, id_: int) -> int:
    """Return a 64-bit number that is the same in every process."""
    digest = hashlib.sha256(f"conductor {kind} {id_}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
