"""Bound placeholders: references by resource key, which mean the same whoever reads them.

In a Score file `${resources.db.host}` means the file's own `db`. The stored params of a resource
may come from several files, so their references are bound first: `${resources.<key>.host}`, with
the dots of the key escaped. Everything after planning reads and fills the bound form only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any

from provisioning.score.placeholders import (
    PLACEHOLDER,
    Reference,
    look_up,
    parse_reference,
    references,
    substitute,
)
from provisioning.score.workload import Json


def bind(value: Json, rewrite: Callable[[str], str]) -> Json:
    """Rewrite every placeholder in a JSON value; `rewrite` takes and returns what is in `${…}`.

    Escaped dollar signs stay escaped, so the result can be substituted later. What `rewrite`
    returns with a leading `=` is put in place of the whole placeholder, as text.
    """
    if isinstance(value, str):
        return (
            PLACEHOLDER.sub(lambda match: _bound(match, rewrite), value) if "$" in value else value
        )
    if isinstance(value, Mapping):
        return {key: bind(item, rewrite) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [bind(item, rewrite) for item in value]
    return value


def bound_text(key: str, outputs: tuple[str, ...]) -> str:
    """Write the inside of a bound placeholder."""
    return ".".join(part.replace(".", r"\.") for part in ("resources", key, *outputs))


def literal_text(value: str) -> str:
    """Make `bind` put this text in place of a placeholder."""
    return "=" + value


def bound_references(value: Json) -> Iterator[Reference]:
    """Walk the references of a bound value."""
    return (reference for _, reference in references(value))


def keys_in(params: Json) -> set[str]:
    """Collect the keys of the resources whose outputs a bound value uses."""
    return {reference.alias for reference in bound_references(params)}


def substitute_bound(
    params: Mapping[str, Json],
    outputs: Mapping[str, Mapping[str, Json]],
    params_schema: Mapping[str, Any] | None = None,
) -> dict[str, Json]:
    """Fill the references of bound params from `{key: {output: value}}`.

    The result is text, as in score-go, except for a param that is one placeholder and nothing else
    and that `params_schema` does not allow to be text: it keeps the output's own type.
    Raises PlaceholderError for an output that is not there, naming the resource and the output.
    """

    def lookup(reference: Reference) -> Json:
        return look_up(outputs.get(reference.alias, {}), reference.keys, reference)

    filled = {}
    for name, value in params.items():
        whole = PLACEHOLDER.fullmatch(value) if isinstance(value, str) else None
        if whole and whole["escaped"] is None and not _may_be_text(params_schema, name):
            filled[name] = lookup(parse_reference(whole["text"]))
        else:
            filled[name] = substitute(value, lookup)
    return filled


def sensitive_params(
    params: Mapping[str, Json], sensitive: Mapping[str, Set[str]]
) -> frozenset[str]:
    """Name the params that use a sensitive output, given `{key: {sensitive output}}`."""
    return frozenset(
        name
        for name, value in params.items()
        if any(
            reference.keys[0] in sensitive.get(reference.alias, ())
            for reference in bound_references(value)
        )
    )


def has_placeholder(value: Json) -> bool:
    """Tell whether a value is known only at run time, in whole or in part."""
    return next(bound_references(value), None) is not None


def _may_be_text(params_schema: Mapping[str, Any] | None, name: str) -> bool:
    schema = (params_schema or {}).get("properties", {}).get(name, {})
    types = schema.get("type", "string")
    return "string" in ([types] if isinstance(types, str) else types)


def _bound(match: re.Match[str], rewrite: Callable[[str], str]) -> str:
    if match["escaped"] is not None:
        return str(match[0])
    text = rewrite(match["text"])
    return text[1:].replace("$", "$$") if text.startswith("=") else f"${{{text}}}"
