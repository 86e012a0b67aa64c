"""Keep of a resource's states the newest, and what each of the last runs left."""

from __future__ import annotations

from uuid import UUID

from django.conf import settings
from django.db import connection

# Who wrote a version is a step or a person, and one follows the other. Of a step that is no more it
# cannot be told whether it wrote the next one too: each of its versions counts by itself.
_PRUNE_SQL = """
DELETE FROM provisioning_stateversion WHERE id IN (
    SELECT id FROM (
        SELECT id, number, is_last,
               count(*) FILTER (WHERE is_last) OVER (ORDER BY number DESC) AS writers
        FROM (
            SELECT id, number,
                   (step_id IS NULL AND stored_by = '')
                   OR step_id IS DISTINCT FROM lead(step_id) OVER following
                   OR stored_by IS DISTINCT FROM lead(stored_by) OVER following AS is_last
            FROM provisioning_stateversion WHERE resource_id = %(resource)s
            WINDOW following AS (ORDER BY number)
        ) written
    ) counted
    WHERE number <= %(newest)s - %(kept)s AND NOT (is_last AND writers <= %(kept)s)
)
"""


def prune_versions(resource_id: UUID, newest: int) -> None:
    """Delete, after version `newest` was stored, those that are not kept.

    CONDUCTOR_STATE_VERSIONS says how many are: the newest ones, and besides them the last version of
    each of as many writers. One apply writes a version for each thing that it makes, and would else
    leave none from before it.
    """
    kept = settings.CONDUCTOR_STATE_VERSIONS
    if newest <= kept:
        return
    with connection.cursor() as cursor:
        cursor.execute(_PRUNE_SQL, {"resource": resource_id, "newest": newest, "kept": kept})
