"""Logs: who may hear of them, how far they were read, and when they go.

`provisioning.workers.logs` writes them.
"""

from __future__ import annotations
