from __future__ import annotations

import os
import re
import socket
from datetime import UTC, datetime

import pytest

from provisioning.models.workers import Worker
from provisioning.workers import heartbeat
from provisioning.workers.heartbeat import Heartbeat, current_worker_id, installed_tools

pytestmark = pytest.mark.django_db

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@pytest.fixture
def heart(monkeypatch: pytest.MonkeyPatch) -> Heartbeat:
    monkeypatch.setattr(heartbeat, "installed_tools", lambda: {"terraform": "1.11.4"})
    monkeypatch.setattr(heartbeat, "_current", None)
    return Heartbeat(["default", "production"])


def test_a_registered_worker_says_where_it_is_and_what_it_can(heart: Heartbeat) -> None:
    heart.register()
    row = Worker.objects.get()
    assert (row.host, row.pid) == (socket.gethostname(), os.getpid())
    assert (row.queues, row.tools) == (["default", "production"], {"terraform": "1.11.4"})
    assert re.fullmatch(r"\d+\.\d+\.\d+", row.version)
    assert row.stopped_at is None
    assert current_worker_id() == row.id


def test_a_process_outside_of_a_worker_has_no_worker(heart: Heartbeat) -> None:
    assert current_worker_id() is None
    assert not Worker.objects.exists()


def test_a_beat_moves_the_time(heart: Heartbeat) -> None:
    heart.register()
    Worker.objects.update(last_seen_at=LONG_AGO)
    heart.beat()
    assert Worker.objects.get().last_seen_at > LONG_AGO


def test_a_worker_that_was_thought_dead_comes_back(heart: Heartbeat) -> None:
    heart.register()
    Worker.objects.all().delete()
    heart.beat()
    Worker.objects.update(stopped_at=LONG_AGO)
    heart.beat()
    row = Worker.objects.get()
    assert (row.id, row.stopped_at) == (heart.id, None)


def test_a_stopped_worker_says_when(heart: Heartbeat) -> None:
    heart.register()
    heart.stop()
    row = Worker.objects.get()
    assert row.stopped_at == row.last_seen_at


@pytest.mark.terraform
def test_the_tools_of_the_host_are_found() -> None:
    tools = installed_tools()
    assert all(re.match(r"\d+\.\d+", version) for version in tools.values())
    assert {"terraform", "tofu"} & set(tools)
