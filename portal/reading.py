"""Read the database on behalf of answers that last: streams of events and downloads.

Such an answer holds no thread and no database connection while it waits, however many there are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from asgiref.sync import SyncToAsync, sync_to_async
from django.db import connections

READERS = 4
"""So many read at once, all streams and downloads of a web process together."""

P = ParamSpec("P")
R = TypeVar("R")

_readers = ThreadPoolExecutor(READERS, thread_name_prefix="reader")


async def read(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function that reads the database, in a thread that all share; then give its connection back."""
    call = partial(_call, partial(function, *args, **kwargs))
    return await asyncio.get_running_loop().run_in_executor(_readers, call)


async def read_each(pieces: Iterator[str]) -> AsyncIterator[str]:
    """Take one piece after the other, each with its own `read`."""
    await let_go()
    while (piece := await read(next, pieces, None)) is not None:
        yield piece


async def let_go() -> None:
    """Give back the thread in which a request's middleware ran, and its database connection.

    Django keeps both until the answer has ended, which here may take hours.
    """
    await sync_to_async(connections.close_all)()
    context = SyncToAsync.thread_sensitive_context.get(None)
    if context is not None:
        thread = SyncToAsync.context_to_thread_executor.pop(context, None)
        if thread is not None:
            thread.shutdown(wait=False)


def _call(function: Callable[[], R]) -> R:
    try:
        return function()
    finally:
        connections.close_all()
