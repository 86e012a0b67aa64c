"""The catalogue: templates read from files and kept with their content."""

from __future__ import annotations

from provisioning.services.catalog.content import DamagedContentError, unpack
from provisioning.services.catalog.params import param_problems
from provisioning.services.catalog.problems import CatalogError
from provisioning.services.catalog.rematching import Rematch, RematchError, guarded
from provisioning.services.catalog.rules import RuleChange
from provisioning.services.catalog.sync import (
    SyncResult,
    deprecate_version,
    newest,
    sync_catalog,
)

__all__ = [
    "CatalogError",
    "DamagedContentError",
    "Rematch",
    "RematchError",
    "RuleChange",
    "SyncResult",
    "deprecate_version",
    "guarded",
    "newest",
    "param_problems",
    "sync_catalog",
    "unpack",
]
