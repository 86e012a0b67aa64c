"""Conditions that templates state, such as `consumer.team == resource.team`.

The language is Python's, of which only names, `.` and `[…]`, text, numbers, lists, comparisons,
`in`, `and`, `or` and `not` exist. Nothing can be called or computed, so a condition always ends.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from provisioning.exceptions import ConductorError

Roots: TypeAlias = Mapping[str, Collection[str] | None]
"""What a condition may name: roots, and which facts each has (None: any)."""
FACTS = (
    "application",
    "environment",
    "environment_kind",
    "metadata",
    "organisation",
    "params",
    "tags",
    "team",
)
SHARING: Roots = {"consumer": FACTS, "resource": FACTS}
"""What a rule for conditional sharing compares."""
UNKNOWN = object()
"""A fact that is there, and whose value nobody knows yet."""
LONGEST = 2_000
COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: lambda one, other: bool(one == other),
    ast.NotEq: lambda one, other: bool(one != other),
    ast.Lt: lambda one, other: bool(one < other),
    ast.LtE: lambda one, other: bool(one <= other),
    ast.Gt: lambda one, other: bool(one > other),
    ast.GtE: lambda one, other: bool(one >= other),
    ast.In: lambda one, other: bool(one in other),
    ast.NotIn: lambda one, other: bool(one not in other),
}


class ConditionError(ConductorError):
    """Refuse a rule that is not of the language; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that has been read."""

    text: str
    tree: ast.expr

    def holds(self, **facts: Mapping[str, Any]) -> bool:
        """Tell whether the condition holds for these facts, given by root; see `verdict`."""
        return self.verdict(facts) is True

    def verdict(self, facts: Mapping[str, Mapping[str, Any]]) -> bool | None:
        """Tell whether the condition holds; None if that depends on a fact which is UNKNOWN.

        A fact that is not there makes every comparison with it false, as does comparing what has no
        order.
        """
        truth = _truth(_value(self.tree, facts))
        return None if truth is UNKNOWN else bool(truth)

    def paths(self) -> list[tuple[str, ...]]:
        """List the facts that the condition names, each once, in their order."""
        return list(dict.fromkeys(_paths(self.tree)))

    def names(self, root: str) -> frozenset[str]:
        """Return what it names of a root."""
        return frozenset(path[1] for path in self.paths() if path[0] == root)


def read_condition(text: str, roots: Roots = SHARING) -> Condition:
    """Read a condition over these roots; raise ConditionError if it is not of the language."""
    if len(text) > LONGEST:
        raise ConditionError(f"The rule is longer than {LONGEST:,} characters.")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        _check(tree, roots)
    except (SyntaxError, ValueError) as error:
        raise ConditionError(f"The rule `{text}` cannot be read: {error}.") from error
    except (RecursionError, MemoryError) as error:
        raise ConditionError("The rule is nested too deeply.") from error
    return Condition(text, tree)


def fact_at(path: Sequence[str], facts: Mapping[str, Any]) -> Any:
    """Follow a path into facts; None if it leads to nothing."""
    fact: Any = facts
    for part in path:
        if fact is UNKNOWN:
            return UNKNOWN
        fact = fact.get(part) if isinstance(fact, Mapping) else None
    return fact


def _check(node: ast.expr, roots: Roots) -> None:
    match node:
        case ast.BoolOp(values=parts) | ast.List(elts=parts) | ast.Tuple(elts=parts):
            below = parts
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            below = [operand]
        case ast.Compare(left=left, ops=ops, comparators=others) if all(
            type(each) in COMPARISONS for each in ops
        ):
            below = [left, *others]
        case ast.Constant(value=str() | bool() | int() | float() | None):
            below = []
        case ast.Attribute() | ast.Subscript() | ast.Name():
            _check_path(node, roots)
            below = []
        case _:
            raise ConditionError(
                f"`{ast.unparse(node)}` is not allowed in a rule. It may compare facts of "
                f"{' and '.join(f'`{root}`' for root in roots)} with one another and with values, "
                "joined by and, or, not."
            )
    for each in below:
        _check(each, roots)


def _check_path(node: ast.expr, roots: Roots) -> None:
    path = _path(node)
    facts = roots.get(path[0], ())
    if len(path) < 2 or (facts is not None and path[1] not in facts):
        known = [f"{root}.{fact}" for root in roots for fact in _listed(roots[root])]
        raise ConditionError(
            f"There is no fact `{ast.unparse(node)}`. There are {', '.join(known) or 'none'}."
        )


def _listed(facts: Collection[str] | None) -> Collection[str]:
    return ("…",) if facts is None else facts


def _paths(node: ast.expr) -> list[tuple[str, ...]]:
    if isinstance(node, ast.Attribute | ast.Subscript | ast.Name):
        return [tuple(_path(node))]
    return [
        path
        for each in ast.iter_child_nodes(node)
        if isinstance(each, ast.expr)
        for path in _paths(each)
    ]


def _path(node: ast.expr) -> list[str]:
    match node:
        case ast.Name(id=name):
            return [name]
        case ast.Attribute(value=inner, attr=name):
            return [*_path(inner), name]
        case ast.Subscript(value=inner, slice=ast.Constant(value=str(name))):
            return [*_path(inner), name]
    raise ConditionError(f"`{ast.unparse(node)}` does not name a fact.")


def _value(node: ast.expr, facts: Mapping[str, Any]) -> Any:
    match node:
        case ast.BoolOp(op=op, values=parts):
            truths = [_truth(_value(each, facts)) for each in parts]
            return _all(truths) if isinstance(op, ast.And) else _not(_all(map(_not, truths)))
        case ast.UnaryOp(operand=operand):
            return _not(_truth(_value(operand, facts)))
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            items = [_value(each, facts) for each in parts]
            return UNKNOWN if any(each is UNKNOWN for each in items) else items
        case ast.Constant(value=value):
            return value
        case ast.Compare(left=left, ops=ops, comparators=others):
            values = [_value(each, facts) for each in (left, *others)]
            pairs = zip(ops, values, values[1:], strict=False)
            return _all(_compare(op, one, other) for op, one, other in pairs)
    return fact_at(_path(node), facts)


def _truth(value: Any) -> Any:
    return value if value is UNKNOWN else bool(value)


def _not(truth: Any) -> Any:
    return truth if truth is UNKNOWN else not truth


def _all(truths: Iterable[Any]) -> Any:
    """Join truths by and: one that is false decides, whatever is unknown."""
    known = list(truths)
    if any(each is False for each in known):
        return False
    return UNKNOWN if any(each is UNKNOWN for each in known) else True


def _compare(op: ast.cmpop, one: Any, other: Any) -> Any:
    if one is None or other is None:
        return False
    if one is UNKNOWN or other is UNKNOWN:
        return UNKNOWN
    try:
        return COMPARISONS[type(op)](one, other)
    except TypeError:
        return False
