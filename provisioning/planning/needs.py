"""One entry of what a template needs besides itself, and what its placeholders can name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from provisioning.planning.expressions import (
    CONTEXT,
    PARAMS,
    Expression,
    ExpressionError,
    fill,
    value_of,
)
from provisioning.planning.facts import VersionFacts
from provisioning.planning.references import bound_text
from provisioning.score.workload import Json

SAME_ID, SAME_CLASS = "${id}", "${class}"


@dataclass(frozen=True, slots=True)
class Need:
    """One entry of a template's `requirements` or `co_provision`."""

    key: str
    type: str
    class_: str
    id: str
    params: Mapping[str, Json]
    priority: int | None
    required: bool
    is_dependent: bool
    copy_dependents: bool
    validators: tuple[Mapping[str, str], ...]

    @classmethod
    def of(cls, said: Mapping[str, Any], *, required: bool) -> Need:
        """Read an entry as the catalogue stores it."""
        return cls(
            key=said.get("key", said["type"]),
            type=said["type"],
            class_=said.get("class", "default"),
            id=said.get("id", "" if required else SAME_ID),
            params=said.get("params", {}),
            priority=said.get("priority"),
            required=required,
            is_dependent=said.get("is_dependent", False),
            copy_dependents=said.get("copy_dependents", False),
            validators=tuple(said.get("validators", ())),
        )


def needs_of(version: VersionFacts) -> list[Need]:
    """List what a template version needs besides itself, what it requires first."""
    required = [Need.of(each, required=True) for each in version.requirements]
    return required + [Need.of(each, required=False) for each in version.co_provision]


def names_of(needs: Iterable[Need]) -> dict[str, str]:
    """Map the names by which needs may be referred to, to their keys: the key, or a type met once."""
    needs = list(needs)
    types = Counter(each.type for each in needs)
    by_type = {each.type: each.key for each in needs if types[each.type] == 1}
    return by_type | {each.key: each.key for each in needs}


def inputs_of(
    version: VersionFacts,
    params: Mapping[str, Json],
    context: Mapping[str, Any],
    needs: Mapping[str, str],
) -> dict[str, Json]:
    """Fill the params that a template fills in itself.

    `params` and `context` are the resource's own, `needs` maps what it requires to the keys. Raises
    ExpressionError.
    """
    if not version.inputs:
        return {}
    names = names_of(Need.of(each, required=True) for each in version.requirements)
    scope = Scope(
        with_defaults(version, params), context, {name: needs[key] for name, key in names.items()}
    )
    filled: dict[str, Json] = fill(version.inputs, scope.look_up)
    return filled


@dataclass(frozen=True, slots=True)
class Scope:
    """Everything that the placeholders of one template can name."""

    params: Mapping[str, Json]
    context: Mapping[str, Any]
    keys: Mapping[str, str]

    def look_up(self, expression: Expression) -> Any:
        """Give an expression's value; an output is given as a bound placeholder."""
        if expression.root == PARAMS:
            return value_of(expression, self.params)
        if expression.root == CONTEXT:
            return value_of(expression, self.context)
        if expression.filters:
            raise ExpressionError(f"${{{expression.text}}} is known only at run time.")
        return f"${{{bound_text(self.keys[expression.root], expression.keys)}}}"


def with_defaults(version: VersionFacts, params: Mapping[str, Json]) -> dict[str, Json]:
    """Return params with the defaults of the version's schema for those that are not given."""
    properties = version.params_schema.get("properties", {})
    defaults = {
        name: schema["default"]
        for name, schema in properties.items()
        if isinstance(schema, Mapping) and "default" in schema
    }
    return defaults | dict(params)
