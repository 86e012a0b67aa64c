"""Delete the logs of deployments that ended long ago."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.utils import timezone

from provisioning.models import LogChunk

CHUNKS_AT_ONCE = 1000
MOST_BATCHES = 100


def delete_old_logs() -> int:
    """Delete what was said in deployments that ended more than CONDUCTOR_LOG_DAYS ago; return how much.

    A call takes seconds at most, and leaves the rest to the next one.
    """
    before = timezone.now() - timedelta(days=settings.CONDUCTOR_LOG_DAYS)
    deleted = last = 0
    for _ in range(MOST_BATCHES):
        # Chunks get their numbers as time goes on, so the old ones are found without an index.
        oldest = list(
            LogChunk.objects.filter(pk__gt=last)
            .order_by("pk")
            .values_list("pk", "created_at", "step__deployment__finished_at")[:CHUNKS_AT_ONCE]
        )
        old = [pk for pk, _, finished in oldest if finished is not None and finished < before]
        deleted += LogChunk.objects.filter(pk__in=old).delete()[0]
        if len(oldest) < CHUNKS_AT_ONCE or oldest[-1][1] >= before:
            break
        last = oldest[-1][0]
    return deleted
