"""Let many streams of one web process hear the news of their deployments over one connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from django.db import DEFAULT_DB_ALIAS, Error, connections
from psycopg import sql

from provisioning.services.logs.announcing import CHANNEL, News, announced

logger = logging.getLogger(__name__)

CHECK_SECONDS = 10.0
"""How often a quiet connection is tried, and closed if nobody listens any more."""
RETRY_SECONDS = 0.5
NOT_FOR_LISTENING = ("context", "cursor_factory")


class Subscription:
    """Gather the news of one deployment for one stream, however slow that is.

    It begins with everything: only what comes later is heard.
    """

    def __init__(self) -> None:
        self._news = News(everything=True)
        self._arrived = asyncio.Event()
        self._arrived.set()

    def add(self, step: int | None) -> None:
        """Note that a step, or with None the deployment itself, has changed."""
        self._news.add(step)
        self._arrived.set()

    async def news(self, seconds: float) -> News:
        """Wait for news and take them; they are empty if none came in this time."""
        try:
            await asyncio.wait_for(self._arrived.wait(), seconds)
        except TimeoutError:
            return News()
        self._arrived.clear()
        news, self._news = self._news, News()
        return news


class Broker:
    """Listen for as long as anybody subscribes, and hand the news on.

    After a lost connection, everybody hears that everything may have changed.
    """

    def __init__(self) -> None:
        self._subscriptions: dict[int, set[Subscription]] = {}
        self._listening: asyncio.Task[None] | None = None

    @contextmanager
    def subscribe(self, deployment_id: int) -> Iterator[Subscription]:
        """Hear the news of a deployment inside the block."""
        subscription = Subscription()
        self._subscriptions.setdefault(deployment_id, set()).add(subscription)
        if self._listening is None or self._listening.done():
            self._listening = asyncio.create_task(self._listen())
        try:
            yield subscription
        finally:
            left = self._subscriptions[deployment_id]
            left.discard(subscription)
            if not left:
                del self._subscriptions[deployment_id]

    async def _listen(self) -> None:
        lost = False
        while self._subscriptions:
            try:
                parameters = await asyncio.to_thread(_parameters)
                async with await psycopg.AsyncConnection.connect(**parameters) as connection:
                    lost = False
                    await self._pass_on(connection)
            except (psycopg.Error, Error, OSError) as error:
                if not lost:
                    logger.warning("Live logs cannot reach the database, trying again: %s", error)
                lost = True
                await asyncio.sleep(RETRY_SECONDS)

    async def _pass_on(self, connection: psycopg.AsyncConnection[Any]) -> None:
        await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                subscription.add(None)
        while self._subscriptions:
            async for notify in connection.notifies(timeout=CHECK_SECONDS):
                deployment, step = announced(notify.payload)
                for subscription in self._subscriptions.get(deployment, ()):
                    subscription.add(step)
            await connection.execute("SELECT 1")


def _parameters() -> dict[str, Any]:
    """Return how Django connects to the database."""
    parameters = connections[DEFAULT_DB_ALIAS].get_connection_params()
    kept = {name: value for name, value in parameters.items() if name not in NOT_FOR_LISTENING}
    return kept | {"autocommit": True}


_brokers: WeakKeyDictionary[asyncio.AbstractEventLoop, Broker] = WeakKeyDictionary()


def broker() -> Broker:
    """Return the broker of the running event loop, of which a web process has one."""
    return _brokers.setdefault(asyncio.get_running_loop(), Broker())
