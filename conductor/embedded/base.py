"""Django's database backend for the embedded server: ENGINE "conductor.embedded"."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db.backends.postgresql import base, client


class DatabaseClient(client.DatabaseClient):
    """Let `manage.py dbshell` open the embedded server."""

    @classmethod
    def settings_to_cmd_args_env(
        cls, settings_dict: dict[str, Any], parameters: Any
    ) -> tuple[list[str], dict[str, str] | None]:
        address = settings.EMBEDDED_SERVER.ensure()
        reach = {
            "HOST": address.host,
            "PORT": address.port,
            "USER": address.user,
            "PASSWORD": address.password,
        }
        command, environment = super().settings_to_cmd_args_env(settings_dict | reach, parameters)
        if shutil.which(command[0]) is None:
            command[0] = str(settings.EMBEDDED_SERVER.place().programs / command[0])
        return command, environment


class DatabaseWrapper(base.DatabaseWrapper):
    """Start the embedded server at the first connection, and connect to it over its socket."""

    client_class = DatabaseClient

    def get_connection_params(self) -> dict[str, Any]:
        address = settings.EMBEDDED_SERVER.ensure()
        socket = Path(address.socket_dir) / f".s.PGSQL.{address.port}"
        # Cleaners of /tmp take sockets away; TCP is then as good.
        host = address.socket_dir if socket.exists() else address.host
        return super().get_connection_params() | {
            "host": host,
            "port": address.port,
            "user": address.user,
            "password": address.password,
        }
