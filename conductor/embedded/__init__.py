"""A PostgreSQL server that comes with Conductor, for machines that have none.

`server.py` starts it at the first use and stops it, `owner.py` decides who runs it, and `base.py` is
the database backend that starts it at the first connection.
"""

from __future__ import annotations
