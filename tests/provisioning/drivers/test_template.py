from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from provisioning.drivers import get_driver
from provisioning.drivers.base import DriverError, DriverInput, Output
from tests.provisioning.drivers.runs import MemoryRun, driver_input, outputs

TEMPLATE = get_driver("template")


def _ensured(tmp_path: Path, config: dict[str, Any], **changes: Any) -> dict[str, Any]:
    resource: DriverInput = driver_input(tmp_path, config=config, **changes)
    return dict(TEMPLATE.ensure(resource, MemoryRun(tmp_path)).outputs)


def test_text_is_composed_of_params_and_context(tmp_path: Path) -> None:
    config = {"outputs": {"url": "http://${params.host}/${context.environment}?n=${name}"}}
    found = _ensured(tmp_path, config, params={"host": "example.org"})
    assert found == {"url": "http://example.org/development?n=shop-db"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${params.port}", 5432),
        ("${params.port | default(80)}", 5432),
        ("${params.missing | default(80)}", 80),
        ("${params.tags}", {"a": [1]}),
        ("${params.port + 1}", 5433),
        ("p${params.port}", "p5432"),
        ("${ {'a': 1}['a'] }", 1),
        ("${params.port} ", "5432 "),
        ("no expression, $ { } here", "no expression, $ { } here"),
    ],
)
def test_a_single_expression_keeps_its_type(tmp_path: Path, text: str, value: object) -> None:
    params = {"port": 5432, "tags": {"a": [1]}}
    assert _ensured(tmp_path, {"outputs": {"x": text}}, params=params) == {"x": value}


def test_ports_are_known_by_name_and_by_number(tmp_path: Path) -> None:
    context = {"workloads": {"api": {"ports": {"http": {"port": 80, "targetPort": 8080}}}}}
    config = {
        "outputs": {
            "named": "${workloads.api.http.target_port}",
            "numbered": "${workloads.api['80'].protocol}",
        }
    }
    assert _ensured(tmp_path, config, context=context) == {"named": 8080, "numbered": "TCP"}


def test_every_entry_of_a_map_is_passed_through(tmp_path: Path) -> None:
    context = {"variables": {"NAME": "World", "SIZE": 3}}
    assert _ensured(tmp_path, {"pass_through": "${variables}"}, context=context) == {
        "NAME": "World",
        "SIZE": 3,
    }


def test_an_open_declaration_decides_what_is_sensitive(tmp_path: Path) -> None:
    resource = driver_input(
        tmp_path,
        config={"outputs": {"a": "1", "b": "2"}},
        outputs=(Output("*", sensitive=True), Output("b")),
    )
    assert TEMPLATE.ensure(resource, MemoryRun(tmp_path)).sensitive == {"a"}


@pytest.mark.parametrize(
    ("text", "is_secret"),
    [
        ("x${params.password}", True),
        ("${params['password']}", True),
        ("${params}", True),
        ("${params[params.which]}", True),
        ("${params.user}", False),
        ("${name}", False),
    ],
)
def test_what_is_composed_of_a_secret_is_secret(tmp_path: Path, text: str, is_secret: bool) -> None:
    resource = driver_input(
        tmp_path,
        config={"outputs": {"x": text}},
        params={"password": "p", "user": "u", "which": "user"},
        sensitive_params=frozenset({"password"}),
        outputs=outputs("x"),
    )
    assert ("x" in TEMPLATE.ensure(resource, MemoryRun(tmp_path)).sensitive) is is_secret


def test_a_condition_that_does_not_hold_is_told_in_the_template_s_words(tmp_path: Path) -> None:
    config = {
        "requires": [
            {
                "condition": "${params.workload in workloads}",
                "message": 'No ${params.workload}; there are ${workloads | join(", ")}.',
            }
        ]
    }
    with pytest.raises(DriverError, match=r"^No nowhere; there are web, api\.$") as failed:
        _ensured(tmp_path, config, params={"workload": "nowhere"})
    assert failed.value.permanent is True


@pytest.mark.parametrize("text", ["${params.missing}", "a${params.missing}", "${missing.x}"])
def test_what_does_not_exist_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(DriverError, match=r"config.outputs.x: .*missing.*") as failed:
        _ensured(tmp_path, {"outputs": {"x": text}})
    assert failed.value.permanent is True


@pytest.mark.parametrize(
    "text",
    [
        "${name.__class__.__mro__}",
        "${''.join.__self__.__class__}",
        "${params.update({'a': 1})}",
        "${range(10)}",
    ],
)
def test_an_expression_reaches_nothing_else(tmp_path: Path, text: str) -> None:
    with pytest.raises(DriverError, match=r"^config\.outputs\.x: "):
        _ensured(tmp_path, {"outputs": {"x": text}})


def test_a_malformed_expression_is_refused_when_the_template_is_read(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match=r"^config\.outputs\.x: .* in '\$\{params\.\}'"):
        TEMPLATE.describe(tmp_path, {"outputs": {"x": "${params.}"}})


def test_its_outputs_are_declared(tmp_path: Path) -> None:
    found = TEMPLATE.describe(tmp_path, {"outputs": {"b": "1", "a": "2"}})
    assert [output.name for output in found.outputs] == ["a", "b"]
