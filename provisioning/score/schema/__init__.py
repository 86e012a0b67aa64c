"""Check plain documents against JSON schemas, saying what is wrong in a person's words."""

from __future__ import annotations
