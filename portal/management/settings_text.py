"""Resolved outputs as settings that a shell or a dotenv reader takes."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

Outputs = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""{workload: {alias: {output: value}}}"""


class NameCollisionError(ValueError):
    """Say that two outputs would be given the same variable name."""


def settings_lines(outputs: Outputs, form: str) -> Iterator[str]:
    """Write outputs as `NAME=value` lines; `form` is `shell` or `dotenv`.

    A name is ALIAS_OUTPUT, after the workload's name if there are several. Raises
    NameCollisionError if two outputs differ only in characters that a name cannot have.
    """
    quote = shlex.quote if form == "shell" else dotenv_quote
    taken: dict[str, str] = {}
    for workload, aliases in outputs.items():
        for alias, values in aliases.items():
            for output, value in values.items():
                parts = [workload] if len(outputs) > 1 else []
                name = variable_name(*parts, alias, output)
                path = f"{workload}.{alias}.{output}"
                if name in taken:
                    raise NameCollisionError(
                        f"{taken[name]} and {path} would both be {name}. Use --format json."
                    )
                taken[name] = path
                yield f"{'export ' if form == 'shell' else ''}{name}={quote(as_text(value))}"


def variable_name(*parts: str) -> str:
    """Make a variable's name of some parts: upper case, other characters as underscores."""
    name = re.sub(r"[^A-Z0-9]", "_", "_".join(parts).upper(), flags=re.ASCII)
    return f"_{name}" if name[:1].isdigit() else name


def as_text(value: Any) -> str:
    """Write a value as an environment variable holds it: text bare, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def dotenv_quote(text: str) -> str:
    r"""Quote a value for dotenv readers: bare if harmless, else so that nothing is expanded.

    Single quotes keep everything as it is; a text that has one itself needs double quotes, in which
    `\`, `"`, `$` and line ends are escaped.
    """
    if re.fullmatch(r"[A-Za-z0-9_./:@%+,=-]*", text):
        return text
    if not re.search(r"['\\\n\r]", text):
        return f"'{text}'"
    escapes = {"\\": "\\\\", '"': '\\"', "$": "\\$", "\n": "\\n", "\r": "\\r"}
    return '"' + "".join(escapes.get(character, character) for character in text) + '"'
