"""A deployment's log as a file to download."""

from __future__ import annotations

import json
from collections.abc import Iterator

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse

from portal.reading import read_each
from provisioning.services.logs.reading import read_all
from provisioning.services.logs.text import LogText

FORMATS = {
    "text": ("log", "text/plain; charset=utf-8"),
    "json": ("jsonl", "application/x-ndjson"),
}


def log_file(
    request: HttpRequest, deployment_id: int, *, step_id: int | None = None, form: str = "text"
) -> StreamingHttpResponse:
    """Answer with what was said by now, as one of FORMATS; one step's, or the whole deployment's."""
    lines = log_lines(deployment_id, step_id=step_id, form=form)
    ending, content_type = FORMATS[form]
    name = f"deployment-{deployment_id}" + (f"-step-{step_id}" if step_id is not None else "")
    return StreamingHttpResponse(
        read_each(lines) if isinstance(request, ASGIRequest) else lines,
        content_type=content_type,
        headers={
            "Content-Disposition": f'attachment; filename="{name}.{ending}"',
            "Cache-Control": "no-store",
        },
    )


def log_lines(deployment_id: int, *, step_id: int | None, form: str) -> Iterator[str]:
    """Yield the log in pieces: text with headings, or one line of JSON for each chunk."""
    text = LogText()
    for entries in read_all(deployment_id, step_id=step_id):
        if form == "json":
            yield "".join(
                json.dumps(entry.as_json(), ensure_ascii=False) + "\n" for entry in entries
            )
        else:
            yield "".join(map(text.of, entries))
