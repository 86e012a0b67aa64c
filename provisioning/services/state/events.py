"""Keep what tools say they do, and what they may have left beside their state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction

from provisioning.drivers.external_state import Event, Orphan
from provisioning.drivers.terraform.journal import settle
from provisioning.drivers.terraform.state import State
from provisioning.exceptions import ConductorError
from provisioning.models import PossibleOrphan, Resource, Step, ToolEvent
from provisioning.services.audit import record
from provisioning.services.resources.find import require_owner
from provisioning.services.state.versions import AT_CONDUCTOR, hold_step, newest_state

_SHOWN = 20


class NoReasonError(ConductorError):
    """Ask for a reason."""


def note_events(*, step: int, attempt: int, events: Sequence[Event], first: int) -> None:
    """Store what the tool of a step said, from its `first` event on; raise LeaseLostError.

    An attempt that follows an earlier one's tool hears everything again, which is stored once.
    """
    with transaction.atomic():
        row = hold_step(step, attempt)
        ToolEvent.objects.bulk_create(
            (
                ToolEvent(
                    resource_id=row.resource_id,
                    step=row,
                    attempt=row.tool_attempt,
                    sequence=sequence,
                    event=event.event,
                    action=event.action,
                    address=event.address,
                    type=event.type,
                    id_key=event.id_key,
                    id_value=event.id_value,
                )
                for sequence, event in enumerate(events, first)
            ),
            ignore_conflicts=True,
        )


def settle_events(*, step: int, attempt: int, state: bytes | None, killed: bool) -> list[Orphan]:
    """Compare what tools said with a resource's state; return and store what may exist beside it.

    What they said is settled then. Raises LeaseLostError.
    """
    with transaction.atomic():
        return _settle(hold_step(step, attempt), state, killed=killed)


def is_settled(resource_id: UUID) -> bool:
    """Tell whether there is nothing to compare with a resource's state."""
    noted = ToolEvent.objects.filter(resource_id=resource_id).values("pk")
    suspected = PossibleOrphan.objects.filter(resource_id=resource_id).values("pk")
    return not noted.union(suspected, all=True)[:1]


def settle_lost(step: Step) -> list[Orphan]:
    """Tell what the tool of a step that is given up may have made beside the state.

    Of a state that is kept elsewhere that waits for the next run, which reads it.
    """
    if step.resource.state_backend not in AT_CONDUCTOR:
        return []
    with transaction.atomic():
        return _settle(step, newest_state(step.resource_id), killed=True)


def _settle(step: Step, state: bytes | None, *, killed: bool) -> list[Orphan]:
    noted = ToolEvent.objects.filter(resource_id=step.resource_id).order_by("pk")
    suspected = PossibleOrphan.objects.filter(resource_id=step.resource_id)
    events = [
        Event(each.event, each.action, each.address, each.type, each.id_key, each.id_value)
        for each in noted
    ]
    before = {_orphan(each): each.pk for each in suspected}
    after = settle(events, before, State.read(state), killed=killed)
    suspected.exclude(pk__in=[pk for orphan, pk in before.items() if orphan in after]).delete()
    new = _sorted(after - before.keys())
    PossibleOrphan.objects.bulk_create(
        [
            PossibleOrphan(
                resource_id=step.resource_id,
                step=step,
                address=orphan.address,
                type=orphan.type,
                id_key=orphan.id_key,
                id_value=orphan.id_value,
                remade=orphan.remade,
            )
            # Of what was begun at one address twice, what was made again since stays.
            for orphan in sorted(new, key=lambda each: not each.remade)
        ],
        ignore_conflicts=True,
    )
    noted.delete()
    known = {(each.address, each.id_value) for each in before}
    if told := [each for each in new if (each.address, each.id_value) not in known]:
        _record(step.resource, None, "suspected", _listed(told))
    return _sorted(after)


def list_orphans(*, resource: Resource) -> list[Orphan]:
    """Return what may exist beside a resource's state."""
    return _sorted(_orphan(each) for each in resource.possible_orphans.all())


def dismiss_orphans(*, resource: Resource, reason: str, actor: User) -> list[Orphan]:
    """Forget what may exist beside a resource's state, because somebody has looked; return it.

    Raises NoReasonError without a reason, NotAllowedError for others than its owners.
    """
    require_owner(actor, resource, "dismiss the possible orphans of")
    if not reason.strip():
        raise NoReasonError("Say what became of them: it is kept.")
    with transaction.atomic():
        rows = list(resource.possible_orphans.select_for_update())
        orphans = _sorted(_orphan(each) for each in rows)
        resource.possible_orphans.filter(pk__in=[each.pk for each in rows]).delete()
        if orphans:
            _record(resource, actor, "dismissed", f"{reason.strip()} {_listed(orphans)}")
    return orphans


def _orphan(row: PossibleOrphan) -> Orphan:
    return Orphan(row.address, row.type, row.id_key, row.id_value, row.remade)


def _sorted(orphans: Iterable[Orphan]) -> list[Orphan]:
    return sorted(orphans, key=lambda each: (each.address, each.id_value))


def _listed(orphans: Sequence[Orphan]) -> str:
    shown = ", ".join(
        f"{each.address} [{each.id_value or 'id unknown'}]" for each in orphans[:_SHOWN]
    )
    more = len(orphans) - _SHOWN
    return f"{shown}{f' and {more} more' if more > 0 else ''}."


def _record(resource: Resource, actor: User | None, action: str, reason: str) -> None:
    record(
        actor=actor,
        action=f"orphans.{action}",
        subject_type="resource",
        subject_id=resource.pk,
        subject=resource.key,
        reason=reason,
    )
