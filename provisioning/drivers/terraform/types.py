"""Turn Terraform's type constraints and common validations into JSON Schema."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

Schema = dict[str, Any]

_TOKEN = re.compile(r'\s*("(?:\\.|[^"\\])*"|[\w.-]+|[(){}\[\],=:]|.)', re.DOTALL)
_PRIMITIVES: dict[str, Schema] = {
    "string": {"type": "string"},
    "number": {"type": "number"},
    "bool": {"type": "boolean"},
    "any": {},
}


def type_schema(expression: str) -> Schema:
    """Return the JSON Schema of a type constraint; raise ValueError if it is none."""
    parser = _Parser(unwrapped(expression))
    schema = parser.constraint()
    parser.expect("")
    return schema


def unwrapped(expression: str) -> str:
    """Return an expression without the `${…}` that python-hcl2 puts around it."""
    text = expression.strip()
    return text[2:-1].strip() if text.startswith("${") and text.endswith("}") else text


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = _TOKEN.findall(re.sub(r"(#|//)[^\n]*", "", text).strip())
        self._at = 0

    def peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self._at += 1
        return token

    def expect(self, token: str) -> None:
        found = self.take()
        if found != token:
            raise ValueError(f"expected {token or 'the end'!r}, found {found or 'the end'!r}")

    def constraint(self) -> Schema:
        word = self.take().strip('"')
        if word in _PRIMITIVES:
            return dict(_PRIMITIVES[word])
        if word in ("list", "set", "map") and self.peek() != "(":
            return _collection(word, {})
        build = self._constructors().get(word)
        if build is None:
            raise ValueError(f"{word or 'nothing'!r} is not a type")
        self.expect("(")
        schema = build()
        self.expect(")")
        return schema

    def _constructors(self) -> dict[str, Callable[[], Schema]]:
        return {
            "list": lambda: _collection("list", self.constraint()),
            "set": lambda: _collection("set", self.constraint()),
            "map": lambda: _collection("map", self.constraint()),
            "tuple": self._tuple,
            "object": self._object,
        }

    def _tuple(self) -> Schema:
        items = []
        self.expect("[")
        while self.peek() != "]":
            items.append(self.constraint())
            if self.peek() == ",":
                self.take()
        self.expect("]")
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}

    def _object(self) -> Schema:
        properties: dict[str, Schema] = {}
        required = []
        self.expect("{")
        while self.peek() != "}":
            name = self.take().strip('"')
            if self.take() not in ("=", ":"):
                raise ValueError(f"the attribute {name!r} has no type")
            properties[name], optional = self._attribute()
            if not optional:
                required.append(name)
            if self.peek() == ",":
                self.take()
        self.expect("}")
        return {"type": "object", "properties": properties, "required": required}

    def _attribute(self) -> tuple[Schema, bool]:
        if self.peek() != "optional":
            return self.constraint(), False
        self.take()
        self.expect("(")
        schema = self.constraint()
        if self.peek() == ",":
            self.take()
            default = self._balanced()
            try:
                schema["default"] = json.loads(default)
            except ValueError:
                schema["description"] = f"Default: {default}"
        self.expect(")")
        return {"anyOf": [schema, {"type": "null"}]}, True

    def _balanced(self) -> str:
        depth, words = 0, []
        while self.peek() and (depth or self.peek() != ")"):
            depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(self.peek(), 0)
            words.append(self.take())
        return " ".join(words)


def _collection(kind: str, element: Schema) -> Schema:
    if kind == "map":
        return {"type": "object", "additionalProperties": element or True}
    schema: Schema = {"type": "array", "items": element}
    if kind == "set":
        schema["uniqueItems"] = True
    return schema


_NUMBER = r"(-?\d+(?:\.\d+)?)"
_LENGTHS = {
    "string": ("minLength", "maxLength"),
    "array": ("minItems", "maxItems"),
    "object": ("minProperties", "maxProperties"),
}
_MIRRORED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "==": "=="}


def validation_schema(name: str, condition: str, schema: Schema) -> Schema | None:
    """Return the schema keywords that mean the same as a validation's condition, or None.

    Understood are conjunctions of `contains([…], var.x)`, `can(regex("…", var.x))` and comparisons
    of `var.x` or `length(var.x)` with a number.
    """
    keywords: Schema = {}
    for part in _conjuncts(unwrapped(condition)):
        found = _single(name, part, schema)
        if found is None or keywords.keys() & found.keys():
            return None
        keywords.update(found)
    return keywords


def _conjuncts(condition: str) -> list[str]:
    parts, depth, current = [], 0, ""
    for word in re.findall(r'"(?:\\.|[^"\\])*"|&&|[()\[\]{}]|[^"&()\[\]{}]+|&', condition):
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(word, 0)
        if word == "&&" and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += word
    return [*parts, current.strip()]


def _single(name: str, part: str, schema: Schema) -> Schema | None:
    variable = rf"var\.{re.escape(name)}"
    if match := re.fullmatch(rf"contains\(\s*(\[.*\])\s*,\s*{variable}\s*\)", part, re.DOTALL):
        try:
            return {"enum": json.loads(re.sub(r",\s*\]$", "]", match[1]))}
        except ValueError:
            return None
    if match := re.fullmatch(
        rf'can\(\s*regex\(\s*("(?:\\.|[^"\\])*")\s*,\s*{variable}\s*\)\s*\)', part
    ):
        return _pattern(match[1])
    if match := re.fullmatch(rf"(length\(\s*)?{variable}\s*\)?\s*(<=|>=|==|<|>)\s*{_NUMBER}", part):
        return _comparison(bool(match[1]), match[2], float(match[3]), schema)
    if match := re.fullmatch(rf"{_NUMBER}\s*(<=|>=|==|<|>)\s*(length\(\s*)?{variable}\s*\)?", part):
        return _comparison(bool(match[3]), _MIRRORED[match[2]], float(match[1]), schema)
    return None


def _pattern(literal: str) -> Schema | None:
    try:
        pattern = json.loads(literal)
        re.compile(pattern)
    except (ValueError, re.error):
        return None
    return {"pattern": pattern}


def _comparison(of_length: bool, operator: str, number: float, schema: Schema) -> Schema | None:
    if not of_length:
        if schema.get("type") != "number" or operator == "==":
            return None
        keyword = {
            "<": "exclusiveMaximum", "<=": "maximum", ">": "exclusiveMinimum", ">=": "minimum",
        }[operator]  # fmt: skip
        return {keyword: int(number) if number.is_integer() else number}
    names = _LENGTHS.get(str(schema.get("type")))
    if names is None or not number.is_integer():
        return None
    low, high = names
    return {
        "<": {high: int(number) - 1},
        "<=": {high: int(number)},
        ">": {low: int(number) + 1},
        ">=": {low: int(number)},
        "==": {low: int(number), high: int(number)},
    }[operator]
