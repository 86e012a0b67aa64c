"""Serves the portal by ASGI inside the test's process, and reads streams of events from it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import pytest
import uvicorn
from django.conf import settings
from django.contrib.auth.models import User
from django.core.asgi import get_asgi_application
from django.db import connections
from django.test import Client

PATIENCE_SECONDS = 60


class Event(NamedTuple):
    """One event of a stream."""

    name: str
    data: Any
    id: str


@dataclass(frozen=True, slots=True)
class Stream:
    """Hold one answer that goes on."""

    answer: http.client.HTTPResponse

    def lines(self) -> Iterator[str]:
        """Yield the lines that come, until the server ends the answer."""
        while line := self.answer.readline():
            yield line.decode().rstrip("\n")

    def events(self) -> Iterator[Event]:
        """Yield the events that come, until the server ends the answer."""
        fields: dict[str, str] = {}
        for line in self.lines():
            name, _, value = line.partition(": ")
            if name:
                fields[name] = value
            elif "event" in fields:
                yield Event(fields["event"], json.loads(fields["data"]), fields.get("id", ""))
                fields = {}
            else:
                fields = {}


@dataclass(frozen=True, slots=True)
class Portal:
    """Know where the portal is served."""

    url: str

    @contextmanager
    def stream(
        self, deployment: int, user: User | None, *, last: str = "", **query: Any
    ) -> Iterator[Stream]:
        """Open the events of a deployment; `last` is the id of the last event received."""
        headers = {"Last-Event-ID": last} if last else {}
        path = f"/deployments/{deployment}/log/events/?{urlencode(query)}"
        with self._asked(path, user, headers) as answer:
            yield Stream(answer)

    def get(self, path: str, user: User) -> str:
        """Return what is served to a user."""
        with self._asked(path, user, {}) as answer:
            return answer.read().decode()

    @contextmanager
    def _asked(
        self, path: str, user: User | None, headers: dict[str, str]
    ) -> Iterator[http.client.HTTPResponse]:
        if user is not None:
            headers |= {"Cookie": f"{settings.SESSION_COOKIE_NAME}={session_of(user)}"}
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=PATIENCE_SECONDS)
        try:
            connection.request("GET", path, headers=headers)
            yield connection.getresponse()
        finally:
            connection.close()


def session_of(user: User) -> str:
    """Log a user in, and return the session's key."""
    client = Client()
    client.force_login(user)
    return client.cookies[settings.SESSION_COOKIE_NAME].value


@pytest.fixture
def portal(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Generator[Portal]:
    """Serve the portal as it is served in earnest: by uvicorn."""
    # As in a web process: no thread keeps its connection when a request has ended.
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 0)
    server = uvicorn.Server(
        uvicorn.Config(
            get_asgi_application(),
            port=0,
            lifespan="off",
            log_level="warning",
            timeout_graceful_shutdown=1,
        )
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        threading.Event().wait(0.01)
    address = server.servers[0].sockets[0].getsockname()
    yield Portal(f"http://{address[0]}:{address[1]}")
    server.should_exit = True
    thread.join(PATIENCE_SECONDS)
