"""Django's database backend for the embedded server: ENGINE "conductor.embedded"."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db.backends.postgresql import base, client

from conductor.embedded.server import Server


def server() -> Server:
    """Return the server that the settings name."""
    if settings.EMBEDDED_SERVER is None:
        raise ImproperlyConfigured(
            "The engine conductor.embedded needs EMBEDDED_SERVER in settings."
        )
    return settings.EMBEDDED_SERVER


class DatabaseClient(client.DatabaseClient):
    """Let `manage.py dbshell` open the embedded server."""

    @classmethod
    def settings_to_cmd_args_env(
        cls, settings_dict: dict[str, Any], parameters: Any
    ) -> tuple[list[str], dict[str, str] | None]:
        address = server().ensure()
        reach = {
            "HOST": address.host,
            "PORT": address.port,
            "USER": address.user,
            "PASSWORD": address.password,
        }
        command, environment = super().settings_to_cmd_args_env(settings_dict | reach, parameters)
        place = server().place()
        if shutil.which(command[0]) is None and place is not None:
            command[0] = str(place.programs / command[0])
        return command, environment


class DatabaseWrapper(base.DatabaseWrapper):
    """Start the embedded server at the first connection, and connect to it over its socket."""

    client_class = DatabaseClient

    def get_connection_params(self) -> dict[str, Any]:
        address = server().ensure()
        socket = Path(address.socket_dir) / f".s.PGSQL.{address.port}"
        # Cleaners of /tmp take sockets away; TCP is then as good.
        host = address.socket_dir if socket.exists() else address.host
        return super().get_connection_params() | {
            "host": host,
            "port": address.port,
            "user": address.user,
            "password": address.password,
        }
