"""What every driver promises, tried on each of them in the same way."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from django.conf import settings

from provisioning.drivers import UnknownDriverError, driver_names, get_driver
from provisioning.drivers.base import Driver, DriverInput, StoppedError
from tests.provisioning.drivers.runs import MemoryRun, driver_input, outputs

MODULE = """
variable "size" {
  type    = string
  default = "small"
}
resource "terraform_data" "it" {
  input = var.size
}
output "size" {
  value = terraform_data.it.output
}
output "password" {
  value     = "secret-of-${terraform_data.it.id}"
  sensitive = true
}
"""

SCRIPT = """#!/bin/sh
cat > /dev/null
echo '{"resource_outputs": {"size": "small", "password": "very-secret"}, "resource_state": {"n": 1}}'
"""


@dataclass(frozen=True)
class Case:
    """One driver with the input that makes it work, and its stable outputs."""

    driver: Driver
    resource: DriverInput
    environment: dict[str, str]
    keys: set[str]
    sensitive: set[str]


def _fake(content: Path) -> Case:
    resource = driver_input(content, outputs=outputs("size", sensitive=("password",)))
    return Case(get_driver("fake"), resource, {}, {"size", "password"}, {"password"})


def _template(content: Path) -> Case:
    config = {"outputs": {"size": "small", "password": "${name}"}}
    declared = outputs("size", sensitive=("password",))
    resource = driver_input(content, config=config, outputs=declared)
    return Case(get_driver("template"), resource, {}, {"size", "password"}, {"password"})


def _script(content: Path) -> Case:
    script = content / "make"
    script.write_text(SCRIPT)
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    declared = outputs("size", sensitive=("password",))
    resource = driver_input(content, config={"command": "make"}, outputs=declared)
    return Case(get_driver("script"), resource, {}, {"size", "password"}, {"password"})


def _postgres(content: Path) -> Case:
    keys = {"host", "port", "name", "database", "username", "password", "url"}
    url = settings.CONDUCTOR_POSTGRES_ADMIN_URL()
    environment = {"CONDUCTOR_POSTGRES_ADMIN_URL": url}
    resource = driver_input(content, name=f"contract-{content.parent.name}")
    resource = replace(resource, resource_id=str(content))
    return Case(get_driver("postgres"), resource, environment, keys, {"password", "url"})


def _terraform(content: Path) -> Case:
    (content / "main.tf").write_text(MODULE)
    resource = driver_input(content)
    return Case(get_driver("terraform"), resource, {}, {"size", "password"}, {"password"})


CASES = [
    pytest.param(_fake, id="fake"),
    pytest.param(_template, id="template"),
    pytest.param(_script, id="script"),
    pytest.param(_postgres, id="postgres"),
    pytest.param(_terraform, id="terraform", marks=pytest.mark.terraform),
]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    content = tmp_path / "content"
    content.mkdir()
    make: Callable[[Path], Case] = request.param
    return make(content)


@pytest.fixture
def run(case: Case, tmp_path: Path) -> MemoryRun:
    run = MemoryRun(tmp_path / "work" / "resource")
    run.environment = {**run.environment, **case.environment}
    return run


def _settled(case: Case, given: dict[str, object]) -> Case:
    return replace(case, resource=replace(case.resource, previous_outputs=given))


def test_ensure_answers_the_outputs_and_names_the_sensitive_ones(
    case: Case, run: MemoryRun
) -> None:
    result = case.driver.ensure(case.resource, run)
    case.driver.destroy(_settled(case, dict(result.outputs)).resource, run)
    assert set(result.outputs) == case.keys
    assert result.sensitive == case.sensitive


def test_ensure_again_changes_nothing(case: Case, run: MemoryRun) -> None:
    first = case.driver.ensure(case.resource, run)
    again = _settled(case, dict(first.outputs))
    assert case.driver.ensure(again.resource, run).outputs == first.outputs
    case.driver.destroy(again.resource, run)


def test_destroy_may_be_repeated_and_comes_before_any_ensure_without_harm(
    case: Case, run: MemoryRun
) -> None:
    case.driver.destroy(case.resource, run)
    result = case.driver.ensure(case.resource, run)
    settled = _settled(case, dict(result.outputs))
    case.driver.destroy(settled.resource, run)
    case.driver.destroy(settled.resource, run)


def test_after_a_destroy_it_can_be_made_anew(case: Case, run: MemoryRun) -> None:
    first = case.driver.ensure(case.resource, run)
    case.driver.destroy(_settled(case, dict(first.outputs)).resource, run)
    second = case.driver.ensure(case.resource, run)
    case.driver.destroy(_settled(case, dict(second.outputs)).resource, run)
    assert set(second.outputs) == case.keys


def test_no_sensitive_output_is_logged(case: Case, run: MemoryRun) -> None:
    result = case.driver.ensure(case.resource, run)
    case.driver.destroy(_settled(case, dict(result.outputs)).resource, run)
    unmasked = "".join(text for _, _, text in run.unmasked)
    assert not [key for key in result.sensitive if str(result.outputs[key]) in unmasked]
    assert run.logged


def test_nothing_is_left_in_the_work_folder(case: Case, run: MemoryRun) -> None:
    result = case.driver.ensure(case.resource, run)
    assert not run.work_folder.exists() or not list(run.work_folder.iterdir())
    case.driver.destroy(_settled(case, dict(result.outputs)).resource, run)


def test_the_label_and_the_tool_are_told(case: Case) -> None:
    tool = case.driver.tool()
    assert case.driver.label
    assert tool is None or tool[1]


@pytest.mark.parametrize("name", ["postgres", "fake", pytest.param("script")])
def test_a_told_run_stops(name: str, tmp_path: Path) -> None:
    content = tmp_path / "content"
    content.mkdir()
    case = {"postgres": _postgres, "fake": _fake, "script": _script}[name](content)
    if name == "script":
        (content / "make").write_text("#!/bin/sh\nsleep 30\n")
    run = MemoryRun(tmp_path / "work" / "resource", told="cancelled")
    run.environment = {**run.environment, **case.environment}
    with pytest.raises(StoppedError) as stopped:
        case.driver.ensure(case.resource, run)
    assert stopped.value.reason == "cancelled"
    assert run.states == []


def test_an_unknown_driver_is_refused_with_the_likeliest_name() -> None:
    with pytest.raises(UnknownDriverError, match="There is no driver 'terrafrom': did you mean"):
        get_driver("terrafrom")


def test_every_named_driver_can_be_loaded_and_has_its_name() -> None:
    assert [get_driver(name).name for name in driver_names()] == [
        "fake",
        "postgres",
        "script",
        "template",
        "terraform",
    ]
