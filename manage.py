#!/usr/bin/env python3
from __future__ import annotations

import os
import sys


def main() -> None:
    """Run one of Conductor's commands."""
    if sys.version_info < (3, 11):  # noqa: UP036 -- read by an older Python, before anything else
        sys.exit("Conductor needs Python 3.11 or newer; this is " + sys.version.split()[0] + ".")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "conductor.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        if "--traceback" in sys.argv:
            raise
        sys.exit(str(error))


if __name__ == "__main__":
    main()
