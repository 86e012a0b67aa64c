"""What a running driver can ask about an external state: see `provisioning.drivers.external_state`."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from django.conf import settings
from django.db.models import Q

from provisioning.drivers.external_state import Event, Orphan, StateAccess
from provisioning.models import Step, Worker
from provisioning.services.state import events, serve

T = TypeVar("T")

_SKEW = timedelta(minutes=1)


class Persist(Protocol):
    """Do what needs the database, again until it can be reached; see `StepRun.persist`."""

    def __call__(self, write: Callable[[], T]) -> T: ...


class StepExternalState:
    """Implement `ExternalState` for one attempt at a step."""

    def __init__(
        self,
        step: Step,
        *,
        persist: Persist,
        masked: Callable[[str], str],
    ) -> None:
        self._step, self._attempt = step.pk, step.attempt
        self._resource_id = step.resource_id
        self._persist = persist
        self._masked = masked

    def open(self) -> StateAccess:
        """Let this attempt's coming tool reach the state, and no earlier one; see `ExternalState`."""
        token = self._persist(lambda: serve.open_state(step=self._step, attempt=self._attempt))
        address = f"{settings.CONDUCTOR_URL}/api/state/{self._resource_id}"
        return StateAccess(address, serve.RUN_USERNAME, token)

    def note(self, said: Sequence[Event], first: int) -> None:
        """Store what the tool said; an id that is a secret is left out."""
        kept = [self._without_secrets(each) for each in said]
        self._persist(
            lambda: events.note_events(
                step=self._step, attempt=self._attempt, events=kept, first=first
            )
        )

    def settle(self, state: bytes | None, *, killed: bool) -> Sequence[Orphan]:
        """Compare what was noted with the state, if anything was; see `ExternalState`."""
        if self._persist(lambda: events.is_settled(self._resource_id)):
            return []
        return self._persist(
            lambda: events.settle_events(
                step=self._step, attempt=self._attempt, state=state, killed=killed
            )
        )

    def is_left_lock(self, who: str, created: datetime) -> bool:
        """Tell whether a lock was made on a worker's host while a step worked on this resource.

        Steps on a resource follow one another, so whoever made it does not work any more.
        """
        host = who.rpartition("@")[2]
        if host != socket.gethostname() and not Worker.objects.filter(host=host).exists():
            return False
        steps = Step.objects.filter(resource=self._resource_id, started_at__lte=created + _SKEW)
        return steps.filter(
            Q(finished_at=None) | Q(finished_at__gte=created - _SKEW), tool_attempt__gt=0
        ).exists()

    def _without_secrets(self, event: Event) -> Event:
        hidden = self._masked(event.id_value) != event.id_value
        return replace(
            event, address=self._masked(event.address), id_value="" if hidden else event.id_value
        )
