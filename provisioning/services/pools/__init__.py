"""Pools: made, resized, drained, kept filled, and their claims ended in time."""

from __future__ import annotations

from provisioning.services.pools.manage import (
    PoolError,
    PoolStatus,
    create_pool,
    drain_pool,
    list_pools,
    newest_version,
    resize_pool,
)
from provisioning.services.pools.tending import expire_claims, fill_pools

__all__ = [
    "PoolError",
    "PoolStatus",
    "create_pool",
    "drain_pool",
    "expire_claims",
    "fill_pools",
    "list_pools",
    "newest_version",
    "resize_pool",
]
