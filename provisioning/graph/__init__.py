"""Order and draw graphs of strings; an edge `(source, target)` says that source needs target."""

from __future__ import annotations
