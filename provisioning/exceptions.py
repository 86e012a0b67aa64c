from __future__ import annotations


class ConductorError(Exception):
    """Be an expected failure whose message is a sentence for a person."""
