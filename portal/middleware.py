from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import closing

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware
from whitenoise.middleware import WhiteNoiseMiddleware
from whitenoise.responders import StaticFile

CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)

Answer = Callable[[HttpRequest], HttpResponseBase]
AsyncAnswer = Callable[[HttpRequest], Awaitable[HttpResponseBase]]


@sync_and_async_middleware
def content_security_policy(get_response: Answer | AsyncAnswer) -> Answer | AsyncAnswer:
    """Let pages load nothing but what Conductor itself serves, and run no inline script or style."""

    def protect(response: HttpResponseBase) -> HttpResponseBase:
        response.headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        return response

    if iscoroutinefunction(get_response):

        async def answer_async(request: HttpRequest) -> HttpResponseBase:
            return protect(await get_response(request))

        return answer_async

    def answer(request: HttpRequest) -> HttpResponseBase:
        return protect(get_response(request))  # type: ignore[arg-type]

    return answer


class StaticFiles(WhiteNoiseMiddleware):  # type: ignore[misc]
    """Serve the static files, each as a whole.

    An ASGI server cannot stream an open file: Django would warn, and read it as a whole all the same.
    """

    @staticmethod
    def serve(static_file: StaticFile, request: HttpRequest) -> HttpResponse:
        """Return the answer that carries the file, or tells that the browser has it already."""
        with closing(WhiteNoiseMiddleware.serve(static_file, request)) as streamed:
            answer = HttpResponse(streamed.getvalue(), status=streamed.status_code)
            answer.headers = streamed.headers
            return answer
