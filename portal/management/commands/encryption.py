from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from portal.management.base import ConductorCommand
from provisioning.exceptions import ConductorError
from provisioning.services.encryption_keys import rotate_everything


class Command(ConductorCommand):
    help = "Encrypt every stored secret again with the newest of CONDUCTOR_ENCRYPTION_KEYS."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        self.add_actor(actions.add_parser("rotate", help="move everything to the newest key"))

    def handle(self, *args: Any, **options: Any) -> None:
        rotations = rotate_everything(actor=self.actor(options), progress=self.progress)
        for each in rotations:
            self.stdout.write(f"{each.rotated} {each.kind} values have the newest key.")
        unreadable = [f"{each.kind} {pk}" for each in rotations for pk in each.unreadable]
        if unreadable:
            more = f" and {len(unreadable) - 10} more" if len(unreadable) > 10 else ""
            raise ConductorError(
                f"No key opens {', '.join(unreadable[:10])}{more}. "
                "Add the key that they were written with to CONDUCTOR_ENCRYPTION_KEYS and repeat."
            )

    def progress(self, kind: str, done: int, total: int) -> None:
        """Tell on stderr how far the rotation is."""
        self.stderr.write(f"{kind}: {done} of {total}", self.style.NOTICE)
