"""Server-sent events: what the steps of a deployment say, and that a status has changed.

| Event | Data |
|---|---|
| `log` | a JSON list of chunks: step, resource, action, attempt, stream, level, at, text |
| `status` | `{"status": …}`: it, a step's or an answer to a question has changed: look again |
| `end` | `{"status": …}`: nothing more will come |

The id of a `log` event says how far the log was read. Whoever comes back with it as `Last-Event-ID`,
or as `after` in the query, misses nothing and hears nothing twice.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from http import HTTPStatus
from typing import TypeAlias

from django.contrib.auth import get_user
from django.contrib.auth.models import User
from django.contrib.sessions.backends.base import SessionBase
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_GET

from portal.reading import let_go, read
from provisioning.models import Deployment
from provisioning.services.logs.announcing import News
from provisioning.services.logs.broker import broker
from provisioning.services.logs.cursor import Cursor, CursorError
from provisioning.services.logs.following import LOST_ERRORS
from provisioning.services.logs.reading import LogReader, Piece

RECONNECT_MILLISECONDS = 1000
BEAT_SECONDS = 15.0
LOOK_AGAIN_SECONDS = 5.0
CHECK_SECONDS = 30.0
RETRY_SECONDS = 0.5
PAUSE_SECONDS = 0.03
"""Between two readings of one stream, so that the news of many steps are read together."""

EVERYTHING = News(everything=True)
Check: TypeAlias = Callable[[], int]


@require_GET
async def events(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Stream what a deployment, or the `step` in the query, goes on to say, to whoever may see it."""
    if not isinstance(request, ASGIRequest):
        return HttpResponse("Events need an ASGI server.", status=HTTPStatus.NOT_IMPLEMENTED)
    number = request.GET.get("step", "")
    try:
        step = int(number) if number else None
        after = request.headers.get("Last-Event-ID") or request.GET.get("after", "")
        reader = LogReader(pk, cursor=Cursor.parse(after), step_id=step)
    except (ValueError, CursorError):
        return HttpResponse("The query cannot be read.", status=HTTPStatus.BAD_REQUEST)
    allowed = partial(_allowed, request.session, reader)
    status = await read(allowed)
    if status != HTTPStatus.OK:
        return HttpResponse(status=status)
    return StreamingHttpResponse(
        _stream(reader, allowed),
        content_type="text/event-stream",
        headers={"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"},
    )


async def _stream(reader: LogReader, allowed: Check) -> AsyncIterator[str]:
    await let_go()
    yield f"retry: {RECONNECT_MILLISECONDS}\n\n"
    said = checked = time.monotonic()
    with broker().subscribe(reader.deployment_id) as subscription:
        news = await subscription.news(LOOK_AGAIN_SECONDS)
        while True:
            try:
                if time.monotonic() - checked > CHECK_SECONDS:
                    if await read(allowed) != HTTPStatus.OK:
                        return
                    checked = time.monotonic()
                piece = await read(reader.read, news)
            except LOST_ERRORS:
                await asyncio.sleep(RETRY_SECONDS)
                news = EVERYTHING
                continue
            text = "".join(_events(piece, reader))
            if text:
                yield text
                said = time.monotonic()
            if piece.over:
                return
            if piece.more:
                news = News()
                continue
            await asyncio.sleep(PAUSE_SECONDS)
            news = await subscription.news(LOOK_AGAIN_SECONDS) or EVERYTHING
            if time.monotonic() - said > BEAT_SECONDS:
                yield ": still here\n\n"
                said = time.monotonic()


def _events(piece: Piece, reader: LogReader) -> Iterator[str]:
    if piece.entries:
        chunks = [entry.as_json() for entry in piece.entries]
        yield _event("log", chunks, id_=str(reader.cursor))
    if piece.changed:
        yield _event("status", {"status": reader.status})
    if piece.over:
        yield _event("end", {"status": reader.status})


def _event(name: str, data: object, id_: str = "") -> str:
    place = f"id: {id_}\n" if id_ else ""
    return f"event: {name}\n{place}data: {json.dumps(data, ensure_ascii=False)}\n\n"


def _allowed(session: SessionBase, reader: LogReader) -> int:
    """Look whether this session may see the deployment, as it is stored now: 200, 401 or 404."""
    request = HttpRequest()
    request.session = type(session)(session.session_key)
    user = get_user(request)
    if not isinstance(user, User):
        return HTTPStatus.UNAUTHORIZED
    rows = Deployment.objects.visible_to(user).filter(pk=reader.deployment_id)
    if reader.step_id is not None:
        rows = rows.filter(steps=reader.step_id)
    return HTTPStatus.OK if rows.exists() else HTTPStatus.NOT_FOUND
