"""The pure core: Workloads and a Snapshot → Plan."""

from __future__ import annotations
