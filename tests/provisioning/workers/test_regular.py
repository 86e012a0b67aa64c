from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.sessions.models import Session
from django.utils import timezone
from django_q.models import Task

from provisioning.models import Worker
from provisioning.workers.regular import forget_old

pytestmark = pytest.mark.django_db


def test_what_is_old_is_forgotten_and_the_rest_stays() -> None:
    now = timezone.now()
    for days in (1, 31):
        at = now - timedelta(days=days)
        Worker.objects.create(host=f"{days}", pid=1, last_seen_at=at, stopped_at=at)
        Task.objects.create(
            id=str(days), name=str(days), func="f", started=at, stopped=at, success=False
        )
        Session.objects.create(
            session_key=str(days), session_data="", expire_date=now + timedelta(days=10 - days)
        )

    forget_old()

    assert Worker.objects.get().host == "1"
    assert Task.objects.get().name == "1"
    assert Session.objects.get().session_key == "1"
