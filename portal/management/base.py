"""What all of the portal's commands have in common: who acts, how they print, how they fail."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandParser
from django.db import OperationalError, ProgrammingError
from django.db.models import Model, QuerySet

from provisioning.exceptions import ConductorError
from provisioning.models import Application, Environment, Organisation, Team
from provisioning.services.people import UnknownUserError, system_user, user_named

FAILED, USAGE = 1, 2
Row = TypeVar("Row", bound=Model)


class UsageError(ConductorError):
    """Say how the command was called wrongly; the exit status is 2."""


class ConductorCommand(BaseCommand):
    """Be a command that fails with a sentence: exit status 1, or 2 if it was called wrongly.

    Called from Python, it raises the ConductorError itself.
    """

    # The code's own checks, which read all pages, are for `manage.py check` and take a while.
    requires_system_checks = ["environment"]

    def run_from_argv(self, argv: list[str]) -> None:
        """Run, and turn every expected failure into text on stderr and an exit status."""
        try:
            super().run_from_argv(argv)
        except (ConductorError, OperationalError, ProgrammingError) as error:
            if "--traceback" in argv:
                raise
            self.stderr.write(_sentence(error))
            sys.exit(USAGE if isinstance(error, UsageError) else FAILED)
        except KeyboardInterrupt:
            self.stderr.write("Interrupted.")
            sys.exit(130)
        except BrokenPipeError:
            # Whoever read the output has gone (`| head`): nothing is left to say, also at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(FAILED)

    def add_actor(self, parser: CommandParser) -> None:
        """Add `--as USER`; `self.actor(options)` reads it."""
        parser.add_argument(
            "--as",
            dest="as_user",
            metavar="USER",
            help="act as this user (default: the staff user conductor)",
        )

    def add_format(self, parser: CommandParser, *more: str) -> None:
        """Add `--format text|json`, and more formats if there are any; the default is text."""
        parser.add_argument("--format", choices=["text", "json", *more], default="text")

    def add_organisation(self, parser: CommandParser) -> None:
        """Add `--organisation O`; `self.organisation(options)` reads it."""
        parser.add_argument(
            "--organisation", metavar="NAME", help="needed only if there are several"
        )

    def actor(self, options: dict[str, Any]) -> User:
        """Return the user to act as; raise UsageError if there is no such user."""
        name = options.get("as_user")
        try:
            return user_named(name) if name else system_user()
        except UnknownUserError as error:
            raise UsageError(str(error)) from error

    def organisation(self, options: dict[str, Any]) -> Organisation:
        """Return the named organisation, or the only one there is."""
        name = options.get("organisation")
        if name:
            return named(Organisation.objects.all(), name)
        found = list(Organisation.objects.order_by("name")[:2])
        if not found:
            raise UsageError(
                "There is no organisation yet. Create one with manage.py organisation create NAME."
            )
        if len(found) > 1:
            raise UsageError("There are several organisations. Name one with --organisation NAME.")
        return found[0]

    def application(self, organisation: Organisation, name: str) -> Application:
        """Return the organisation's application of this name."""
        return named(Application.objects.filter(organisation=organisation), name)

    def environment(self, organisation: Organisation, name: str) -> Environment:
        """Return the organisation's environment of this name."""
        return named(Environment.objects.filter(organisation=organisation), name)

    def team(self, organisation: Organisation, name: str) -> Team:
        """Return the organisation's team of this name."""
        return named(Team.objects.filter(organisation=organisation), name)

    def print_json(self, value: Any) -> None:
        """Print a JSON value."""
        self.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str))

    def print_rows(
        self, options: dict[str, Any], names: Sequence[str], rows: Sequence[Sequence[Any]]
    ) -> None:
        """Print rows as `--format` says: as a table, or as JSON objects."""
        if options["format"] == "json":
            self.print_json([dict(zip(names, row, strict=True)) for row in rows])
        else:
            self.print_table(
                [name.upper() for name in names],
                [[_cell(value) for value in row] for row in rows],
            )

    def print_table(self, headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Print rows in columns as wide as their longest cell; nothing but the header if empty."""
        lines = [[*headers], *([str(cell) for cell in row] for row in rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
        for line in lines:
            cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            self.stdout.write("  ".join(cells).rstrip())


def named(rows: QuerySet[Row], name: str, field: str = "name") -> Row:
    """Return the row of this name; raise UsageError with the likeliest other name."""
    row = rows.filter(**{field: name}).first()
    if row is not None:
        return row
    noun = str(rows.model._meta.verbose_name)
    known = list(rows.order_by(field).values_list(field, flat=True))
    close = get_close_matches(name, known, n=1)
    if close:
        hint = f"Did you mean {close[0]}?"
    elif known:
        hint = f"There are {', '.join(known[:10])}{', …' if len(known) > 10 else ''}."
    else:
        hint = "There is none yet."
    raise UsageError(f"There is no {noun} {name}. {hint}")


def _cell(value: object) -> str:
    if isinstance(value, dict):
        value = [f"{key}={item}" for key, item in value.items()]
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _sentence(error: Exception) -> str:
    if isinstance(error, OperationalError):
        return f"The database cannot be used: {str(error).strip()}"
    if isinstance(error, ProgrammingError) and "does not exist" in str(error):
        return "The database has not been set up. Run manage.py migrate first."
    return str(error)
