"""Say who holds a state that Conductor serves.

No lock outlives its holder: a step's goes with the step's lease or its next tool, a person's after an
hour without a sign of life. Hence nobody ever has to break one.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from django.db.models.functions import Now

from provisioning.drivers.supervisor import LEASE_GRACE_SECONDS
from provisioning.models import StateLock, StepStatus
from provisioning.models.steps import UNFINISHED_STEP_STATUSES

PERSON_HOLDS = timedelta(hours=1)
_GRACE = timedelta(seconds=LEASE_GRACE_SECONDS + 5)
"""After a lease ran out, the tool has so long to stop and write its state."""


def live_lock(resource_id: UUID) -> StateLock | None:
    """Return the lock of a resource's state, unless its holder is dead."""
    lock = lock_of(resource_id)
    return lock if lock is not None and is_live(lock) else None


def lock_of(resource_id: UUID) -> StateLock | None:
    """Return the lock of a resource's state, whether its holder lives or not."""
    rows = StateLock.objects.select_related("step", "person").annotate(now=Now())
    return rows.filter(resource_id=resource_id).first()


def is_live(lock: StateLock) -> bool:
    """Tell whether the holder of a lock that `lock_of` returned may still be at work."""
    now = lock.now  # type: ignore[attr-defined]
    step = lock.step
    if step is None:
        return bool(lock.expires_at and lock.expires_at > now)
    if step.status not in UNFINISHED_STEP_STATUSES or step.tool_attempt != lock.attempt:
        return False
    grace = _GRACE if step.status == StepStatus.RUNNING else timedelta()
    return step.lease_until is not None and step.lease_until + grace > now


def holder_of(lock: StateLock) -> str:
    """Name a lock's holder for a person."""
    if lock.person is not None:
        return lock.person.get_username()
    step = lock.step
    return f"deployment {step.deployment_id}" if step is not None else "nobody"
