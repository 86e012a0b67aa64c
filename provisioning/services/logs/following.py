"""Follow a deployment's log from a command: read, wait for news, read on."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType

import psycopg
from django import db
from django.db import DEFAULT_DB_ALIAS, connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import sql

from provisioning.services.logs.announcing import CHANNEL, News, announced
from provisioning.services.logs.reading import LogReader, Piece

logger = logging.getLogger(__name__)

LOOK_AGAIN_SECONDS = 2.0
"""How long to wait for news before looking without any: some poolers lose them."""
RETRY_SECONDS = 0.5
LOST_ERRORS = (
    db.OperationalError, db.InterfaceError, psycopg.OperationalError, psycopg.InterfaceError, OSError,
)  # fmt: skip


class Listener:
    """Hear the news of one deployment, over a connection of its own; a context manager."""

    def __init__(self, deployment_id: int) -> None:
        self._deployment_id = deployment_id
        self._own: BaseDatabaseWrapper | None = None

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.forget()

    def wait(self, seconds: float) -> News:
        """Wait for news; if there are none in this time, or if news may have been missed, look at all.

        The first call returns at once: only what comes after it is heard. Raises what the database
        raises when the connection is lost; the next call connects again.
        """
        news = News()
        if self._own is None:
            self._own = connections.create_connection(DEFAULT_DB_ALIAS)
            with self._own.cursor() as cursor:
                cursor.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
        else:
            until = time.monotonic() + seconds
            while not news and (left := until - time.monotonic()) > 0:
                self._hear(self._own.connection, left, news)
        return news or News(everything=True)

    def _hear(self, listening: psycopg.Connection[object], seconds: float, news: News) -> None:
        for notify in listening.notifies(timeout=seconds, stop_after=1):
            deployment, step = announced(notify.payload)
            if deployment == self._deployment_id:
                news.add(step)

    def forget(self) -> None:
        """Close the connection, whatever its condition."""
        own, self._own = self._own, None
        if own is not None:
            with suppress(db.Error, psycopg.Error, OSError):
                own.close()


def follow(reader: LogReader) -> Iterator[Piece]:
    """Read a log piece by piece until nothing more can come.

    A lost connection is made again, for as long as it takes; nothing is left out or read twice.
    """
    lost = more = False
    with Listener(reader.deployment_id) as listener:
        while True:
            try:
                piece = reader.read(News() if more else listener.wait(LOOK_AGAIN_SECONDS))
            except LOST_ERRORS as error:
                if connection.in_atomic_block:
                    raise
                if not lost:
                    logger.warning("The database cannot be reached, trying again: %s", error)
                lost, more = True, False
                listener.forget()
                connection.close()
                time.sleep(RETRY_SECONDS)
                continue
            yield piece
            if piece.over:
                return
            lost, more = False, piece.more
