from __future__ import annotations

from tests.provisioning.conftest import ledger, place

__all__ = ["ledger", "place"]
