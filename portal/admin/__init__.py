"""The admin for platform engineers, one file per noun."""

from __future__ import annotations

from portal.admin import (
    audit,
    catalog,
    deployments,
    organisation,
    others,
    resources,
    workers,
)

__all__ = ["audit", "catalog", "deployments", "organisation", "others", "resources", "workers"]
