"""What an alias asks for that finds its resource by criteria, and what has it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from provisioning.score.workload import Json, Matching, ResourceDeclaration

SLOT_LENGTH = 40
SCALARS = frozenset({str, int, float, bool, type(None)})
Place = tuple[str, str, str]
"""(application, workload, alias) of a consumer."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an alias asks for; `values` are the bound params it must match on."""

    place: Place
    declaration: ResourceDeclaration
    params: Mapping[str, Json]
    slot: str
    values: Mapping[str, Json]
    facts: Mapping[str, Any]
    matching: Matching


def criteria(matching: Matching) -> dict[str, Json]:
    """Return criteria as JSON values, as consumers keep them."""
    kept = asdict(matching)
    return kept | {"match_on": None if matching.match_on is None else list(matching.match_on)}


def matched_values(matching: Matching, params: Mapping[str, Json]) -> dict[str, Json]:
    """Return the params that must be equal; one that is not set must be unset elsewhere too."""
    names = params if matching.match_on is None else matching.match_on
    return {name: params.get(name) for name in sorted(names)}


def slot_of(
    owner: Sequence[str], declaration: ResourceDeclaration, params: Mapping[str, Json]
) -> str:
    """Return the slot: a sha256 over who the scope belongs to, type, class and matched values."""
    matching = declaration.binding.matching or Matching()
    names = None if matching.match_on is None else list(matching.match_on)
    values = matched_values(matching, params)
    told = [*owner, declaration.type, declaration.class_, names, values]
    return hashlib.sha256(json_text(told).encode()).hexdigest()[:SLOT_LENGTH]


def slot_key(slot: str, ordinal: int) -> str:
    """Return the key of a resource in a slot."""
    return f"slot/{slot}/{ordinal}"


def difference(wanted: Wanted, params: Mapping[str, Json]) -> str:
    """Return the first matched param whose value is another one, or ""."""
    values = wanted.values
    for name, value in values.items():
        other = params.get(name)
        # Python takes 1 and true for equal, also inside lists and maps.
        if value != other or type(value) is not type(other):
            return name
        if type(value) not in SCALARS and json_text(value) != json_text(other):
            return name
    if wanted.matching.match_on is None and len(params) != len(values):
        return next((name for name in sorted(params) if name not in values), "")
    return ""


def shown(params: Mapping[str, Json], name: str) -> str:
    """Write the value of a param for a person."""
    return json_text(params[name]) if name in params else "not set"


def json_text(value: Json) -> str:
    """Write a value as canonical JSON."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
