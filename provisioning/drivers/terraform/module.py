"""Read what a Terraform module declares: its variables, outputs and backend."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from provisioning.drivers.base import DriverError, Output, TemplateInterface
from provisioning.drivers.terraform.sources import refused_module, refused_provider
from provisioning.drivers.terraform.types import type_schema, unwrapped, validation_schema

# Variables that a module may declare and that the driver fills; they are not params.
PROVIDED_VARIABLES = (
    "conductor_context",
    "conductor_name",
    "conductor_resource_id",
    "conductor_tags",
    "conductor_uid",
)
SUFFIXES = (".tf", ".tf.json", ".tofu", ".tofu.json")
COMMENT = "//"
"""The key that the JSON syntax leaves for people (HCL JSON Profile, "Comments")."""

_HEREDOC = re.compile(
    r"<<(?P<indented>-?)(?P<word>\w+)\r?\n(?P<text>.*?)[ \t]*(?P=word)\s*\Z", re.DOTALL
)
_SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"

Block = Mapping[str, Any]


def describe_module(content: Path) -> TemplateInterface:
    """Return a module's params schema and outputs; raise DriverError with file and line if it is bad."""
    files = [path for path in sorted(content.iterdir()) if path.name.endswith(SUFFIXES)]
    if not files:
        raise DriverError(
            f"{content} holds no Terraform module: it has no .tf file.", permanent=True
        )
    documents = [(path.name, _parsed(path)) for path in files]
    for name, document in documents:
        _refuse_backend(name, document)
    for name, document in _all_documents(content, documents):
        _refuse_sources(name, document)
    properties: dict[str, Any] = {}
    required = []
    for file, name, block in _blocks(documents, "variable"):
        if name not in PROVIDED_VARIABLES:
            properties[name] = _variable(file, name, block)
            if "default" not in block:
                required.append(name)
    outputs = [_output(file, name, block) for file, name, block in _blocks(documents, "output")]
    schema = {
        "$schema": _SCHEMA_DIALECT,
        "type": "object",
        "properties": properties,
        "required": sorted(required),
        "additionalProperties": False,
    }
    return TemplateInterface(schema, tuple(sorted(outputs, key=lambda output: output.name)))


def declared_variables(content: Path) -> frozenset[str]:
    """Return the names of all variables of a module, those that the driver fills included."""
    files = [path for path in sorted(content.iterdir()) if path.name.endswith(SUFFIXES)]
    documents = [(path.name, _parsed(path)) for path in files]
    return frozenset(name for _, name, _ in _blocks(documents, "variable"))


def declared_blocks(content: Path, kind: str) -> dict[tuple[str, ...], Block]:
    """Return a module's blocks of a kind with labels, `resource` or `module`, by their labels."""
    found: dict[tuple[str, ...], Block] = {}
    for path in sorted(content.iterdir()):
        if path.name.endswith(SUFFIXES):
            for _, label, body in _blocks([(path.name, _parsed(path))], kind):
                if kind == "resource":
                    found |= {
                        (label, name): block
                        for name, said in body.items()
                        for block in _bodies(said)
                    }
                else:
                    found[label,] = body
    return found


def _parsed(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.name.endswith(".json"):
            document = json.loads(text, object_pairs_hook=lambda pairs: _object(path.name, pairs))
        else:
            document = _hcl(path.name, text)
    except json.JSONDecodeError as error:
        raise _bad(path.name, f"{error.msg}.", error.lineno, error.colno) from error
    except UnicodeDecodeError as error:
        raise _bad(path.name, "the file is not UTF-8 text.") from error
    if not isinstance(document, dict):
        raise _bad(path.name, "the file is not a JSON object.")
    return document


def _object(file: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse duplicate keys: Terraform takes every block of them, and a dict only the last."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found and key != COMMENT:
            raise _bad(file, f"the key {key!r} stands twice in one object: make the two one.")
        found[key] = value
    return found


def _hcl(file: str, text: str) -> dict[str, Any]:
    # Loading the parser takes longer than five applies, and most runs need no parsing.
    import hcl2
    from lark.exceptions import LarkError

    options = hcl2.SerializationOptions(
        with_comments=False,
        strip_string_quotes=True,
        preserve_heredocs=True,  # else their quotes and backslashes are escaped, as nothing else is
        explicit_blocks=False,
    )
    try:
        document: dict[str, Any] = hcl2.loads(text, serialization_options=options)
    except LarkError as error:
        line, column = getattr(error, "line", None), getattr(error, "column", None)
        token = str(getattr(error, "token", "")).splitlines()
        found = (
            f"{token[0].strip()!r}" if token and token[0].strip() else "the end of a line or file"
        )
        raise _bad(file, f"{found} is not expected here.", line, column) from error
    return {key: _without_heredocs(value) for key, value in document.items()}


def _without_heredocs(value: Any) -> Any:
    """Write `<<EOT` and the indented `<<-EOT` as the text that they mean."""
    if isinstance(value, dict):
        return {key: _without_heredocs(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_heredocs(item) for item in value]
    heredoc = _HEREDOC.match(value) if isinstance(value, str) else None
    if heredoc is None:
        return value
    return textwrap.dedent(heredoc["text"]) if heredoc["indented"] else heredoc["text"]


def _bad(
    file: str, message: str, line: int | None = None, column: int | None = None
) -> DriverError:
    place = ":".join(str(part) for part in (file, line, column) if part is not None)
    return DriverError(f"{place}: {message}", permanent=True)


def _blocks(
    documents: list[tuple[str, dict[str, Any]]], kind: str
) -> Iterator[tuple[str, str, Block]]:
    """Yield (file, name, body) of each block of a kind, in both syntaxes."""
    for file, document in documents:
        for group in _bodies(document.get(kind)):
            for name, said in group.items():
                if name != COMMENT:
                    for body in _bodies(said):
                        yield file, name, body


def _bodies(said: Any) -> Iterator[Block]:
    """Yield the bodies of blocks of one kind; JSON may nest them in lists, as deep as it likes."""
    if isinstance(said, list):
        for each in said:
            yield from _bodies(each)
    elif isinstance(said, dict):
        yield said


def _refuse_backend(file: str, document: Mapping[str, Any]) -> None:
    for block in _bodies(document.get("terraform")):
        for word in ("backend", "cloud"):
            if word in block:
                raise _bad(
                    file,
                    f"the module declares its own `{word}` block. Conductor keeps the state itself: "
                    "remove the block.",
                )


def _all_documents(
    content: Path, documents: list[tuple[str, dict[str, Any]]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the documents of the module itself and of the modules in its subfolders."""
    yield from documents
    for path in sorted(content.rglob("*")):
        if path.parent != content and path.is_file() and path.name.endswith(SUFFIXES):
            yield path.relative_to(content).as_posix(), _parsed(path)


def _refuse_sources(file: str, document: Mapping[str, Any]) -> None:
    for _, name, block in _blocks([(file, dict(document))], "module"):
        source = block.get("source")
        why = (
            refused_module(source, PurePosixPath(file).parent)
            if isinstance(source, str)
            else f"the module {name!r} has no source that is a text."
        )
        if why:
            raise _bad(file, why)
    for block in _bodies(document.get("terraform")):
        for group in _bodies(block.get("required_providers")):
            for requirement in group.values():
                source = requirement.get("source") if isinstance(requirement, dict) else None
                if isinstance(source, str) and (why := refused_provider(source)):
                    raise _bad(file, f"the provider {why}")


def _variable(file: str, name: str, block: Block) -> dict[str, Any]:
    try:
        schema = type_schema(str(block.get("type", "any")))
    except ValueError as error:
        raise _bad(file, f"the type of variable {name!r} cannot be read: {error}.") from error
    notes = [str(block.get("description", "")).strip()]
    for rule in _bodies(block.get("validation")):
        keywords = validation_schema(name, str(rule.get("condition", "")), schema)
        if keywords is None or schema.keys() & keywords.keys():
            notes.append(f"Must satisfy: {unwrapped(str(rule.get('condition', '')))}")
        else:
            schema.update(keywords)
    if block.get("nullable", True) is not False and schema and block.get("default", ...) is None:
        schema = {"anyOf": [schema, {"type": "null"}]}
    if "default" in block:
        schema["default"] = block["default"]
    if description := "\n".join(note for note in notes if note):
        schema["description"] = description
    if block.get("sensitive") is True:
        schema |= {"writeOnly": True, "x-sensitive": True}
    return schema


def _output(file: str, name: str, block: Block) -> Output:
    if "value" not in block:
        raise _bad(file, f"the output {name!r} has no value.")
    return Output(
        name=name,
        sensitive=block.get("sensitive") is True,
        description=str(block.get("description", "")).strip(),
        type="any",
    )
