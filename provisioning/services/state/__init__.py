"""What is stored, locked and suspected of the states that drivers and their tools keep."""

from __future__ import annotations
