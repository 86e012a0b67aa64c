from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from conductor.embedded.server import Server


class Command(BaseCommand):
    help = "Look at, start or stop the PostgreSQL server that comes with Conductor."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "action",
            choices=["status", "start", "stop", "dsn"],
            help="dsn prints the administrator's address, with its password",
        )

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        server: Server | None = settings.EMBEDDED_SERVER
        if server is None:
            raise CommandError("DATABASE_URL is set, so there is no embedded server.")
        match action:
            case "start":
                server.ensure()
                self.show(server)
            case "stop":
                stopped = server.stop()
                self.stdout.write("stopped" if stopped else "not running")
            case "dsn":
                address = server.ensure()
                self.stdout.write(address.url(address.dbname))
            case _:
                self.show(server)

    def show(self, server: Server) -> None:
        """Print whether the server runs, and where its parts are."""
        address, place = server.address(), server.place()
        self.stdout.write("running" if address else "not running")
        if place is not None:
            self.stdout.write(f"data    {place.data}")
            self.stdout.write(f"log     {server.log}")
        if address is not None:
            self.stdout.write(f"socket  {address.socket_dir}")
            self.stdout.write(f"tcp     {address.host}:{address.port}")
