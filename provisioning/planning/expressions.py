"""The placeholders of templates: `${params.name}`, `${context.application}`, `${<key>.output}`.

A template writes them into what it requires, into its `inputs` and, if it is a component, into its
outputs. `| lower` and `| upper` after the name change the case of text. Filling them gives bound
values (`planning.references`): params and context are put in, outputs stay placeholders.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from provisioning.exceptions import ConductorError
from provisioning.score.placeholders import PLACEHOLDER, as_text
from provisioning.score.workload import Json, Part

PARAMS, CONTEXT, SELF = "params", "context", "self"
OWN_CONTEXT = ("application", "environment", "environment_kind", "organisation", "workload")
"""What the inputs of a resource may name."""
NEED_CONTEXT = ("alias", *OWN_CONTEXT)
"""What a need may name; the alias is the one in the file."""
FILTERS: Mapping[str, Callable[[str], str]] = {"lower": str.lower, "upper": str.upper}
WRITTEN = re.compile(r"\s*(?P<path>[\w-]+(?:\.[\w-]+)+)\s*(?P<filters>(?:\|\s*\w+\s*)*)")
ABSENT = object()
"""What an optional param that nobody gives is filled with: its entry is left out."""


class ExpressionError(ConductorError):
    """Refuse a placeholder of a template; `param` is the one that nobody gives, if that is why."""

    def __init__(self, message: str, *, param: str = "") -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, slots=True)
class Expression:
    """What stands between `${` and `}`: a root, the way below it, and filters."""

    text: str
    root: str
    keys: tuple[str, ...]
    filters: tuple[str, ...] = ()


Lookup = Callable[[Expression], Any]


def read_expression(text: str) -> Expression:
    """Read the inside of a placeholder; raise ExpressionError if it is malformed."""
    match = WRITTEN.fullmatch(text)
    if match is None:
        raise ExpressionError(
            f"The placeholder ${{{text}}} is malformed: it takes names with dots between them, and "
            f"{' or '.join(FILTERS)} after a `|`."
        )
    root, *keys = match["path"].split(".")
    filters = tuple(each.strip() for each in match["filters"].split("|")[1:])
    unknown = [each for each in filters if each not in FILTERS]
    if unknown:
        raise ExpressionError(
            f"The placeholder ${{{text}}} has the unknown filter {unknown[0]}: there are "
            f"{' and '.join(FILTERS)}."
        )
    return Expression(text, root, tuple(keys), filters)


def expressions_in(
    value: Json, parts: tuple[Part, ...] = ()
) -> Iterator[tuple[tuple[Part, ...], str]]:
    """Find the inside of every placeholder in texts and in the keys of maps, with its place."""
    if isinstance(value, str):
        for match in PLACEHOLDER.finditer(value):
            if match["escaped"] is None:
                yield parts, match["text"]
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from expressions_in(key, (*parts, key))
            yield from expressions_in(item, (*parts, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from expressions_in(item, (*parts, index))


def check_expressions(
    value: Json, *, params: Collection[str], names: Collection[str], context: Collection[str]
) -> Iterator[tuple[tuple[Part, ...], str]]:
    """Tell, with its place, what each placeholder names that is not there.

    `params` are the template's own, `names` what it may take outputs from, `context` what it is told.
    """
    for place, text in expressions_in(value):
        try:
            expression = read_expression(text)
        except ExpressionError as error:
            yield place, str(error)
            continue
        root, first = expression.root, expression.keys[0]
        if root == PARAMS and first not in params:
            known = ", ".join(sorted(params)) or "none"
            yield place, f"${{{text}}} names no param of the template; the params are {known}."
        elif root == CONTEXT and first not in context:
            yield place, f"${{{text}}} names nothing; context has {', '.join(context)} here."
        elif root not in (PARAMS, CONTEXT) and root not in names:
            known = ", ".join(sorted({PARAMS, CONTEXT, *names}))
            yield place, f"${{{text}}} names nothing that it may see; that is {known}."


def fill(value: Json, lookup: Lookup) -> Any:
    """Fill every placeholder, in keys of maps too; a text that is only one keeps the value's type.

    Entries whose value is ABSENT are left out. Raises ExpressionError.
    """
    if isinstance(value, str):
        return _fill_text(value, lookup)
    if isinstance(value, Mapping):
        filled = {_fill_inside(key, lookup): fill(item, lookup) for key, item in value.items()}
        return {key: item for key, item in filled.items() if item is not ABSENT}
    if isinstance(value, list | tuple):
        items = (fill(item, lookup) for item in value)
        return [item for item in items if item is not ABSENT]
    return value


def value_of(expression: Expression, root: Mapping[str, Json]) -> Any:
    """Follow an expression into params or context; ABSENT if it leads to nothing."""
    value: Any = root
    for key in expression.keys:
        if not isinstance(value, Mapping) or key not in value:
            return ABSENT
        value = value[key]
    return _filtered(value, expression)


def _fill_text(text: str, lookup: Lookup) -> Any:
    whole = PLACEHOLDER.fullmatch(text)
    if whole and whole["escaped"] is None:
        return lookup(read_expression(whole["text"]))
    return _fill_inside(text, lookup)


def _fill_inside(text: str, lookup: Lookup) -> str:
    def replacement(match: re.Match[str]) -> str:
        if match["escaped"] is not None:
            return str(match[0])
        expression = read_expression(match["text"])
        value = lookup(expression)
        if value is ABSENT:
            raise ExpressionError(
                f"${{{expression.text}}} has no value in {text!r}.", param=expression.keys[0]
            )
        return as_text(value)

    return PLACEHOLDER.sub(replacement, text) if "$" in text else text


def _filtered(value: Json, expression: Expression) -> Json:
    for name in expression.filters:
        if not isinstance(value, str) or "${" in value:
            raise ExpressionError(
                f"${{{expression.text}}} cannot be written {name}: its value is "
                f"{'known only at run time' if isinstance(value, str) else 'no text'}."
            )
        value = FILTERS[name](value)
    return value
