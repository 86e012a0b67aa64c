"""A Terraform provider whose things take their time to make, and are noted in a file outside of any state.

What a killed tool made and its state does not hold can only be shown with a provider of one's own: what
Terraform brings along is made in an instant.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

SOURCE = "conductor.test/tests/ledger"
VERSION = "0.1.0"
_PROVIDER = Path(__file__).parent / "provider.py"


def lay_mirror(folder: Path) -> Path:
    """Make a folder of providers, for CONDUCTOR_TERRAFORM_MIRROR, that has this one; return it."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    home = folder / SOURCE / VERSION / f"{os.uname().sysname.lower()}_{machine}"
    home.mkdir(parents=True)
    program = home / f"terraform-provider-ledger_v{VERSION}"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{_PROVIDER}" "$@"\n')
    program.chmod(0o755)
    return folder
