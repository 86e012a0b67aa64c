"""The admin for platform engineers, one file per noun."""

from __future__ import annotations

from portal.admin import (
    approvals,
    audit,
    catalog,
    credentials,
    deployments,
    figures,
    maintenance,
    organisation,
    others,
    pools,
    resources,
    workers,
)

__all__ = [
    "approvals",
    "audit",
    "catalog",
    "credentials",
    "deployments",
    "figures",
    "maintenance",
    "organisation",
    "others",
    "pools",
    "resources",
    "workers",
]
