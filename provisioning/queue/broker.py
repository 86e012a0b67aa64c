"""The django-q2 broker: rows in PostgreSQL, announced by NOTIFY and claimed with SKIP LOCKED.

Against django-q2's own ORM broker: a waiting worker is told of a row instead of polling for it, rows
are claimed in order by one statement, and all times are the database's, not the machine's.
"""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import psycopg
from django import db
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.functions import Now
from django_q.brokers.orm import ORM
from django_q.conf import Conf
from django_q.models import OrmQ
from psycopg import sql

logger = logging.getLogger(__name__)

LOOK_AGAIN = 1.0
"""Seconds after which an idle worker looks without having been told."""

SHOWN_AGAIN = 30.0
"""Seconds after which a claimed row that is not acknowledged, because its worker died, is shown again.
So is that of a task that runs longer: a doorbell heard twice finds nothing to do the second time."""

_CLAIM = sql.SQL(
    """
    UPDATE {table} SET lock = statement_timestamp() + make_interval(secs => %s)
    WHERE id = (
        SELECT id FROM {table} WHERE key = %s AND lock <= statement_timestamp()
        ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    RETURNING id, payload
    """
).format(table=sql.Identifier(OrmQ._meta.db_table))

_ACKNOWLEDGE = sql.SQL(
    """
    DELETE FROM {table} WHERE id = (
        SELECT id FROM {table} WHERE id = %s AND lock > clock_timestamp() FOR UPDATE SKIP LOCKED
    )
    """
).format(table=sql.Identifier(OrmQ._meta.db_table))


class NotifyBroker(ORM):  # type: ignore[misc]  # django-q2 has no types
    """Carry one queue's tasks; `list_key` is the queue's name."""

    list_key: str

    def __init__(self, list_key: str | None = None) -> None:
        super().__init__(list_key=list_key)
        self.wakers: Sequence[
            int
        ] = ()  # file descriptors that end a wait when they become readable
        self._listener: BaseDatabaseWrapper | None = None
        self._lost = False

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        self.wakers, self._listener, self._lost = (), None, False

    @staticmethod
    def get_connection(list_key: str | None = None) -> Any:
        """Return the rows of all queues, without connecting to the database as django-q2's own does."""
        return OrmQ.objects.using(Conf.ORM)

    @property
    def channel(self) -> str:
        """Return the name of the PostgreSQL channel on which this queue's rows are announced."""
        return f"doorbell_{self.list_key}"

    def enqueue(self, task: str) -> int:
        """Store a signed task in the current transaction and return the row's id."""
        with transaction.atomic(using=Conf.ORM, savepoint=False):
            row = OrmQ.objects.using(Conf.ORM).create(key=self.list_key, payload=task, lock=Now())
            self.notify()
        return int(row.pk)

    def notify(self) -> None:
        """Tell the waiting workers, when the current transaction commits, that there is a row."""
        with connections[Conf.ORM].cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, '')", [self.channel])

    def dequeue(self) -> list[tuple[int, str]] | None:
        """Claim the oldest waiting row, or wait about a second for one and return None.

        A lost connection is made again, for as long as it takes.
        """
        try:
            listener = self._listen()
            rows = self._claim()
            if self._lost:
                self._lost = False
                logger.warning("Queue %s: the database is back.", self.list_key)
            if not rows:
                self._wait(LOOK_AGAIN, listener.fileno())
            return rows or None
        except (db.Error, psycopg.Error, OSError) as error:
            if not self._lost:
                self._lost = True
                logger.warning("Queue %s: the database cannot be reached: %s", self.list_key, error)
            self.forget_connections()
            self._wait(LOOK_AGAIN)
            return None

    def acknowledge(self, task_id: int) -> None:
        """Remove a claimed row whose task has ended, unless it is shown again by now.

        Then a transaction that rings may count on it, as on any row that waits.
        """
        with connections[Conf.ORM].cursor() as cursor:
            cursor.execute(_ACKNOWLEDGE, [task_id])

    def forget_connections(self) -> None:
        """Close what is connected, whatever its condition; the next use connects again."""
        listener, self._listener = self._listener, None
        for connection in (listener, connections[Conf.ORM]):
            if connection is not None:
                with suppress(db.Error, psycopg.Error, OSError):
                    connection.close()

    def _listen(self) -> psycopg.Connection[Any]:
        """Return the listening connection, emptied of what it has heard.

        It listens before the caller queries, so a row stored after the query ends the wait at once.
        """
        if self._listener is None:
            listener = connections.create_connection(Conf.ORM)
            with listener.cursor() as cursor:
                cursor.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self.channel)))
            self._listener = listener
        connection: psycopg.Connection[Any] = self._listener.connection
        for _ in connection.notifies(timeout=0):
            pass
        return connection

    def _claim(self) -> list[tuple[int, str]]:
        with connections[Conf.ORM].cursor() as cursor:
            cursor.execute(_CLAIM, [SHOWN_AGAIN, self.list_key])
            rows: list[tuple[int, str]] = cursor.fetchall()
        return rows

    def _wait(self, seconds: float, *heard: int) -> None:
        watched = [*self.wakers, *heard]
        if watched:
            select.select(watched, [], [], seconds)
        else:
            time.sleep(seconds)
