"""The address at which Terraform's `http` backend keeps a resource's state; docs/state.md describes it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt
from rest_framework.authtoken.models import Token

from provisioning.exceptions import ConductorError
from provisioning.services.people import NotAllowedError
from provisioning.services.resources.find import UnknownResourceError
from provisioning.services.state import serve

LONGEST_LOCK = 64 * 1024
_STATUS: dict[type[ConductorError], int] = {
    serve.BadStateError: 400,
    serve.StateDeniedError: 403,
    NotAllowedError: 403,
    UnknownResourceError: 404,
    serve.StateConflictError: 409,
}


class TooLargeError(ConductorError):
    """Say how large a body may be."""


@method_decorator(csrf_exempt, name="dispatch")
class StateView(View):
    """Speak the protocol of Terraform's `http` backend."""

    http_method_names = ["get", "post", "delete", "lock", "unlock"]
    caller: serve.Caller

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Answer only who says who they are, and turn refusals into answers."""
        caller = _caller(request)
        if caller is None:
            answer = _refusal(401, "Give a run's token, or your name and API token.")
            answer.headers["WWW-Authenticate"] = 'Basic realm="Conductor"'
            return answer
        self.caller = caller
        handler: Callable[..., HttpResponse] = super().dispatch  # type: ignore[assignment]
        try:
            return handler(request, *args, **kwargs)
        except serve.StateLockedError as error:
            # Terraform reads who holds it from here: it must be the lock itself.
            return JsonResponse(dict(error.info), status=423)
        except TooLargeError as error:
            return _refusal(413, str(error))
        except ConductorError as error:
            status = next((_STATUS[kind] for kind in _STATUS if isinstance(error, kind)), 409)
            return _refusal(status, str(error))

    def get(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Answer with the state, or 204 if there is none."""
        state = serve.read_state(resource_id=pk, caller=self.caller)
        if state is None:
            return HttpResponse(status=204)
        headers = {"Content-MD5": _md5(state), "Cache-Control": "no-store"}
        return HttpResponse(state, content_type="application/json", headers=headers)

    def post(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Store a new version of the state; `?ID=` is the lock under which it is written."""
        body = _body(request, settings.CONDUCTOR_STATE_MEGABYTES * 1024 * 1024)
        serve.write_state(
            resource_id=pk, caller=self.caller, body=body, lock_id=request.GET.get("ID")
        )
        return HttpResponse(status=200)

    def delete(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Say that there is no state any more."""
        serve.delete_state(resource_id=pk, caller=self.caller)
        return HttpResponse(status=200)

    def lock(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Lock the state, or answer 423 with the lock that stands in the way."""
        serve.lock_state(resource_id=pk, caller=self.caller, info=_lock_info(request))
        return HttpResponse(status=200)

    def unlock(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Unlock the state; an empty body, which `terraform force-unlock` sends, names no lock."""
        info = _lock_info(request)
        lock_id = info.get("ID")
        serve.unlock_state(
            resource_id=pk, caller=self.caller, lock_id=None if lock_id is None else str(lock_id)
        )
        return HttpResponse(status=200)


def _caller(request: HttpRequest) -> serve.Caller | None:
    """Return who asks: by Basic authentication, as Terraform does it, or by an API token's header."""
    scheme, _, word = request.headers.get("Authorization", "").partition(" ")
    username: str | None = None
    password = word.strip()
    if scheme.lower() == "basic":
        try:
            decoded = base64.b64decode(password, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
        username, _, password = decoded.partition(":")
        run = serve.run_caller(password) if username == serve.RUN_USERNAME else None
        if run is not None:
            return run
    elif scheme.lower() != "token":
        return None
    token = Token.objects.select_related("user").filter(key=password.replace("\0", "")).first()
    if token is None or not token.user.is_active:
        return None
    return token.user if username in (None, token.user.get_username()) else None


def _lock_info(request: HttpRequest) -> dict[str, Any]:
    body = _body(request, LONGEST_LOCK)
    if not body.strip():
        return {}
    try:
        info = json.loads(body)
        json.dumps(info, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise serve.BadStateError("The body is not JSON.") from error
    if not isinstance(info, dict) or "\\u0000" in json.dumps(info):
        raise serve.BadStateError("The body is not a lock.")
    return info


def _body(request: HttpRequest, most: int) -> bytes:
    """Read the body, chunked or not; raise BadStateError if it is not what its digest says."""
    said = request.META.get("CONTENT_LENGTH") or "0"
    too_large = said.isdecimal() and int(said) > most
    body = b"" if too_large else request.read(most + 1)
    if too_large or len(body) > most:
        raise TooLargeError(f"A body has {most:,} bytes at most.")
    digest = request.headers.get("Content-MD5")
    if digest is not None and not hmac.compare_digest(digest.encode(), _md5(body).encode()):
        raise serve.BadStateError("The body is not what its Content-MD5 says: send it again.")
    return body


def _md5(body: bytes) -> str:
    digest = hashlib.md5(body, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def _refusal(status: int, detail: str) -> HttpResponse:
    return JsonResponse({"detail": detail}, status=status)
