"""Runs a command as the shell does: arguments in; exit status, stdout and stderr out."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest import mock

from django.core.management import ManagementUtility
from django.db import connections


@dataclass(frozen=True, slots=True)
class Ran:
    """Hold what a command left behind."""

    status: int
    out: str
    err: str


def run(*arguments: str) -> Ran:
    """Run `manage.py` with these arguments, in this process and on the test's connection."""
    out, err = io.StringIO(), io.StringIO()
    status = 0
    # A command closes its connections at its end, and the test's transaction would be lost.
    with redirect_stdout(out), redirect_stderr(err), mock.patch.object(connections, "close_all"):
        try:
            ManagementUtility(["manage.py", *arguments]).execute()
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    return Ran(status, out.getvalue(), err.getvalue())
