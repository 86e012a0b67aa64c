from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from provisioning.drivers import get_driver
from provisioning.drivers.base import DriverError, Output
from provisioning.drivers.terraform.types import type_schema, validation_schema

DRIVER = get_driver("terraform")


def _described(tmp_path: Path, text: str, file: str = "main.tf") -> Any:
    (tmp_path / file).write_text(text)
    return DRIVER.describe(tmp_path, {})


def _properties(tmp_path: Path, text: str) -> dict[str, Any]:
    found = _described(tmp_path, text).params_schema
    Draft202012Validator.check_schema(found)
    properties: dict[str, Any] = found["properties"]
    return properties


@pytest.mark.parametrize(
    ("constraint", "schema"),
    [
        ("string", {"type": "string"}),
        ("${number}", {"type": "number"}),
        ("bool", {"type": "boolean"}),
        ("any", {}),
        ("list(string)", {"type": "array", "items": {"type": "string"}}),
        ("list", {"type": "array", "items": {}}),
        ("set(number)", {"type": "array", "items": {"type": "number"}, "uniqueItems": True}),
        ("map(bool)", {"type": "object", "additionalProperties": {"type": "boolean"}}),
        ("map(any)", {"type": "object", "additionalProperties": True}),
        (
            "tuple([string, number])",
            {
                "type": "array",
                "prefixItems": [{"type": "string"}, {"type": "number"}],
                "items": False,
                "minItems": 2,
            },
        ),
        (
            "object({ a = string, b = optional(list(number), [1, 2]) })",
            {
                "type": "object",
                "properties": {
                    "a": {"type": "string"},
                    "b": {
                        "anyOf": [
                            {"type": "array", "items": {"type": "number"}, "default": [1, 2]},
                            {"type": "null"},
                        ]
                    },
                },
                "required": ["a"],
            },
        ),
        (
            "object({\n  a = string # first\n  b = bool\n})",
            {
                "type": "object",
                "properties": {"a": {"type": "string"}, "b": {"type": "boolean"}},
                "required": ["a", "b"],
            },
        ),
    ],
)
def test_types_become_json_schema(constraint: str, schema: dict[str, Any]) -> None:
    assert type_schema(constraint) == schema
    Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("constraint", ["strin", "list(", "list(string))", "object({a})", ""])
def test_a_wrong_type_is_refused(constraint: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        type_schema(constraint)


@pytest.mark.parametrize(
    ("condition", "type_", "keywords"),
    [
        ('contains(["a", "b"], var.x)', "string", {"enum": ["a", "b"]}),
        ('${contains(["a", "b",], var.x)}', "string", {"enum": ["a", "b"]}),
        (r'can(regex("^[a-z]+\\d$", var.x))', "string", {"pattern": r"^[a-z]+\d$"}),
        ("length(var.x) > 3", "string", {"minLength": 4}),
        ("length(var.x) <= 3", "array", {"maxItems": 3}),
        ("length(var.x) == 3", "string", {"minLength": 3, "maxLength": 3}),
        ("var.x >= 30 && var.x <= 730", "number", {"minimum": 30, "maximum": 730}),
        ("0 < var.x", "number", {"exclusiveMinimum": 0}),
        ("var.x < 1.5", "number", {"exclusiveMaximum": 1.5}),
        ('var.x != "a"', "string", None),
        ("contains(var.allowed, var.x)", "string", None),
        ("var.x > 3 || var.x == 1", "number", None),
        ("length(var.x) > 3 && other(var.x)", "string", None),
        ("length(var.y) > 3", "string", None),
        ('can(regex("(?<a>x)", var.x))', "string", None),
    ],
)
def test_common_validations_become_keywords(
    condition: str, type_: str, keywords: dict[str, Any] | None
) -> None:
    assert validation_schema("x", condition, {"type": type_}) == keywords


def test_variables_become_params(tmp_path: Path) -> None:
    text = """
    variable "size" {
      description = "How big."
      type        = string
      default     = "small"
      validation {
        condition     = contains(["small", "large"], var.size)
        error_message = "No."
      }
    }
    variable "secret" {
      type      = string
      sensitive = true
    }
    variable "odd" {
      type = number
      validation {
        condition     = var.odd % 2 == 1
        error_message = "No."
      }
    }
    variable "maybe" {
      type    = string
      default = null
    }
    variable "conductor_name" {
      type = string
    }
    """
    found = _described(tmp_path, text).params_schema
    assert found["properties"] == {
        "size": {
            "type": "string",
            "enum": ["small", "large"],
            "default": "small",
            "description": "How big.",
        },
        "secret": {"type": "string", "writeOnly": True, "x-sensitive": True},
        "odd": {"type": "number", "description": "Must satisfy: var.odd % 2 == 1"},
        "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
    }
    assert found["required"] == ["odd", "secret"]
    assert found["additionalProperties"] is False


def test_outputs_are_read_with_their_flags(tmp_path: Path) -> None:
    text = """
    output "url" {
      description = <<-EOT
        Where it is.
      EOT
      value       = "x"
    }
    output "key" {
      value     = "y"
      sensitive = true
    }
    """
    assert _described(tmp_path, text).outputs == (
        Output("key", sensitive=True, type="any"),
        Output("url", description="Where it is.", type="any"),
    )


def test_heredocs_are_read_as_the_text_they_mean(tmp_path: Path) -> None:
    text = r"""
variable "rules" {
  type        = string
  default     = <<EOT
  {"a": "\d"}
EOT
  description = <<-EOT
    What "rules" there are:
      one each line.
  EOT
}
"""
    assert _described(tmp_path, text).params_schema["properties"]["rules"] == {
        "type": "string",
        "default": '  {"a": "\\d"}\n',
        "description": 'What "rules" there are:\n  one each line.',
    }


def test_the_json_syntax_is_read_too(tmp_path: Path) -> None:
    document = {
        "variable": {"size": {"type": "number", "default": 3}},
        "output": {"o": {"value": "${var.size}"}},
    }
    found = _described(tmp_path, json.dumps(document), "main.tf.json")
    assert found.params_schema["properties"] == {"size": {"type": "number", "default": 3}}
    assert [output.name for output in found.outputs] == ["o"]


def test_comments_of_the_json_syntax_are_none_of_its_blocks(tmp_path: Path) -> None:
    text = '{"//": "a", "//": "b", "output": {"//": "c", "o": {"value": 1, "//": ["d"]}}}'
    assert [output.name for output in _described(tmp_path, text, "a.tf.json").outputs] == ["o"]


@pytest.mark.parametrize(
    ("text", "file", "message"),
    [
        ('variable "x" {\n  type = = string\n}\n', "main.tf", r"^main\.tf:2:10: '= string'"),
        ('variable "x" {\n', "main.tf", r"^main\.tf:\d+:\d+: the end of a line or file"),
        ('{"variable": \n nope}', "a.tf.json", r"^a\.tf\.json:2:2: "),
        ("[]", "a.tf.json", r"^a\.tf\.json: the file is not a JSON object"),
        ('variable "x" {\n  type = strin\n}\n', "main.tf", r"^main\.tf: the type of variable 'x'"),
        ('output "o" {\n}\n', "main.tf", r"^main\.tf: the output 'o' has no value"),
        ('terraform {\n  backend "s3" {}\n}\n', "b.tf", r"^b\.tf: .* its own `backend` block"),
        ("terraform {\n  cloud {}\n}\n", "b.tf", r"^b\.tf: .* its own `cloud` block"),
        ('{"terraform": {"backend": {"s3": {}}}}', "b.tf.json", r"its own `backend` block"),
        ("terraform {\n  cloud {}\n}\n", "b.tofu", r"its own `cloud` block"),
        (
            '{"terraform": {"backend": {"local": {}}}, "terraform": {}}', "b.tf.json",
            r"^b\.tf\.json: the key 'terraform' stands twice in one object",
        ),
        ('{"terraform": [[{"backend": {"s3": {}}}]]}', "b.tf.json", r"its own `backend` block"),
        ('{"terraform": {"backend": {"s3": {}}}}', "x_override.tf.json", r"its own `backend` block"),
        ('{"terraform": {"cloud": {}}}', "override.tofu.json", r"its own `cloud` block"),
        ("hello", "README.md", r"holds no Terraform module"),
    ],
)  # fmt: skip
def test_a_bad_module_is_refused_with_its_place(
    tmp_path: Path, text: str, file: str, message: str
) -> None:
    with pytest.raises(DriverError, match=message) as failed:
        _described(tmp_path, text, file)
    assert failed.value.permanent is True


def test_every_object_of_a_schema_is_valid(tmp_path: Path) -> None:
    text = 'variable "x" {\n  type = object({ a = map(list(any)), b = optional(string) })\n}\n'
    assert _properties(tmp_path, text)["x"]["required"] == ["a"]
