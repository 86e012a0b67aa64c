"""Secrets that a Score file only refers to: `{secretref: "env:NAME"}` or `{secretref: "file:PATH"}`.

The reference is stored and shown like any other param; only the worker that runs the resource's
driver knows the value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from provisioning.score.workload import Json, Part

KEY = "secretref"
HINT = "write {secretref: env:NAME}, {secretref: file:PATH} or the scheme of an installed vault"
FORM = re.compile(r"[a-z][a-z0-9-]*:[^\s$]+")


def is_secretref(value: Json) -> bool:
    """Tell whether a value is meant as a reference to a secret."""
    return isinstance(value, Mapping) and KEY in value


def secretrefs(value: Json, at: tuple[Part, ...]) -> Iterator[tuple[tuple[Part, ...], Json]]:
    """Find the references to secrets in a value that stands at a place, with their own places."""
    if is_secretref(value):
        yield at, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from secretrefs(item, (*at, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from secretrefs(item, (*at, index))


def malformed(value: Mapping[str, Json]) -> str:
    """Say what is wrong with the form of a reference to a secret, or return ""."""
    if len(value) > 1:
        return f"A secretref stands alone, without {', '.join(sorted(set(value) - {KEY}))}."
    reference = value[KEY]
    if not isinstance(reference, str) or not FORM.fullmatch(reference):
        return "A secretref is text of the form scheme:place, without spaces or placeholders."
    return ""
