from __future__ import annotations

from tests.provisioning.conftest import lasting_place, ledger, place

__all__ = ["lasting_place", "ledger", "place"]
