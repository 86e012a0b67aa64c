"""What every page shows."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from provisioning.services.maintenance import list_maintenance


def maintenance(request: HttpRequest) -> dict[str, Any]:
    """Give pages where maintenance is on; it is read only by those that show it."""
    return {"maintenance_modes": SimpleLazyObject(lambda: list_maintenance(actor=request.user))}
