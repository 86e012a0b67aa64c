"""REST, version 1: `docs/rest.md` describes it."""

from __future__ import annotations
