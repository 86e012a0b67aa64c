"""Several consumers' wishes for one resource become one desired input, or a named conflict.

A consumer that names no params agrees with anything; all others must ask for the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from provisioning.score.workload import Json


@dataclass(frozen=True, slots=True)
class Wish:
    """What one consumer asks for; `params` is None if it names none."""

    application: str
    workload: str
    alias: str
    params: Mapping[str, Json] | None

    @property
    def consumer(self) -> str:
        """Name the consumer for a person."""
        return f"workload {self.workload} of application {self.application}"


@dataclass(frozen=True, slots=True)
class Conflict:
    """The first parameter on which two wishes differ."""

    param: str
    one: Wish
    other: Wish

    def __str__(self) -> str:
        return (
            f"the parameter `{self.param}` is {_shown(self.one, self.param)} for "
            f"{self.one.consumer} and {_shown(self.other, self.param)} for {self.other.consumer}"
        )


def merge(wishes: Sequence[Wish]) -> Mapping[str, Json] | Conflict | None:
    """Return the params everybody agrees on, None if nobody names any, or the first conflict.

    The result does not depend on the order of the wishes.
    """
    voiced = sorted(
        (wish for wish in wishes if wish.params is not None),
        key=lambda wish: (wish.application, wish.workload, wish.alias),
    )
    if not voiced:
        return None
    first = voiced[0]
    for other in voiced[1:]:
        if param := _first_difference(first.params or {}, other.params or {}):
            return Conflict(param, first, other)
    return first.params


def _first_difference(one: Mapping[str, Json], other: Mapping[str, Json]) -> str | None:
    return next(
        (param for param in sorted({*one, *other}) if _text(one, param) != _text(other, param)),
        None,
    )


def _text(params: Mapping[str, Json], param: str) -> str:
    # Compared as JSON, because Python takes 1 and true for equal.
    return json.dumps(params[param], sort_keys=True) if param in params else "not set"


def _shown(wish: Wish, param: str) -> str:
    return _text(wish.params or {}, param)
