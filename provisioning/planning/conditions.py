"""Rules by which a resource is shared conditionally: `consumer.team == resource.team`.

The language is Python's, of which only names, `.` and `[…]`, text, numbers, lists, comparisons,
`in`, `and`, `or` and `not` exist. Nothing can be called or computed, so a rule always ends.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from provisioning.exceptions import ConductorError

ROOTS = ("consumer", "resource")
FACTS = ("application", "environment", "environment_kind", "metadata", "params", "tags", "team")
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
    """A rule that has been read."""

    text: str
    tree: ast.expr

    def holds(self, *, consumer: Mapping[str, Any], resource: Mapping[str, Any]) -> bool:
        """Tell whether the rule holds for these facts.

        A fact that is not there makes every comparison with it false, as does comparing what has no
        order.
        """
        return bool(_value(self.tree, {"consumer": consumer, "resource": resource}))


def read_condition(text: str) -> Condition:
    """Read a rule; raise ConditionError if it is not of the language."""
    if len(text) > LONGEST:
        raise ConditionError(f"The rule is longer than {LONGEST:,} characters.")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        _check(tree)
    except (SyntaxError, ValueError) as error:
        raise ConditionError(f"The rule `{text}` cannot be read: {error}.") from error
    except (RecursionError, MemoryError) as error:
        raise ConditionError("The rule is nested too deeply.") from error
    return Condition(text, tree)


def _check(node: ast.expr) -> None:
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
            _check_path(node)
            below = []
        case _:
            raise ConditionError(
                f"`{ast.unparse(node)}` is not allowed in a rule. It may compare facts of `consumer` "
                "and `resource` with one another and with values, joined by and, or, not."
            )
    for each in below:
        _check(each)


def _check_path(node: ast.expr) -> None:
    path = _path(node)
    if len(path) < 2 or path[0] not in ROOTS or path[1] not in FACTS:
        raise ConditionError(
            f"There is no fact `{ast.unparse(node)}`. There are "
            f"{', '.join(f'{root}.{fact}' for root in ROOTS for fact in FACTS)}."
        )


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
        case ast.BoolOp(op=ast.And(), values=parts):
            return all(_value(each, facts) for each in parts)
        case ast.BoolOp(values=parts):
            return any(_value(each, facts) for each in parts)
        case ast.UnaryOp(operand=operand):
            return not _value(operand, facts)
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [_value(each, facts) for each in parts]
        case ast.Constant(value=value):
            return value
        case ast.Compare(left=left, ops=ops, comparators=others):
            values = [_value(each, facts) for each in (left, *others)]
            return all(
                _compare(op, one, other)
                for op, one, other in zip(ops, values, values[1:], strict=False)
            )
    fact: Any = facts
    for part in _path(node):
        fact = fact.get(part) if isinstance(fact, Mapping) else None
    return fact


def _compare(op: ast.cmpop, one: Any, other: Any) -> bool:
    if one is None or other is None:
        return False
    try:
        return COMPARISONS[type(op)](one, other)
    except TypeError:
        return False
