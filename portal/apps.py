from __future__ import annotations

from django.apps import AppConfig


class PortalConfig(AppConfig):
    """The faces of Conductor: pages, REST, GraphQL, admin and commands."""

    name = "portal"
