"""Read Score files: text in, workloads or problems with line and column out."""

from __future__ import annotations
