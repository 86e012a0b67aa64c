from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.drivers import get_driver
from provisioning.drivers.base import DriverError, Importer
from provisioning.drivers.terraform.imports import Address, check_imports, import_blocks
from provisioning.drivers.tool import Tool
from tests.conftest import find_terraform
from tests.provisioning.drivers.runs import MemoryRun, driver_input

DRIVER: Any = get_driver("terraform")

MODULE = """
variable "size" {
  type    = string
  default = null
}
resource "terraform_data" "it" {
}
resource "terraform_data" "many" {
  count = 2
}
resource "terraform_data" "each" {
  for_each = toset(["a b", "q\\"s", "$x"])
}
module "inner" {
  source = "./inner"
}
output "id" {
  value = terraform_data.it.id
}
"""
INNER = 'resource "terraform_data" "deep" {\n}\n'
ALL = {
    "terraform_data.it": "it-1",
    "terraform_data.many[0]": "many-0",
    "terraform_data.many[1]": "many-1",
    'terraform_data.each["a b"]': "each-a",
    'terraform_data.each["q\\"s"]': "each-q",
    'terraform_data.each["$x"]': "each-x",
    "module.inner.terraform_data.deep": "deep-1",
}


@pytest.fixture
def content(tmp_path: Path) -> Path:
    folder = tmp_path / "content"
    (folder / "inner").mkdir(parents=True)
    (folder / "main.tf").write_text(MODULE)
    (folder / "inner" / "main.tf").write_text(INNER)
    return folder


@pytest.fixture
def importing(content: Path) -> Callable[..., Any]:
    """Return a function that makes the input of a resource which takes in what exists."""

    def make(imports: dict[str, str], *, changes: bool = False, **params: Any) -> Any:
        digest = f"sha256:{hash((content / 'main.tf').read_text())}"
        resource = driver_input(content, params=params, content_digest=digest)
        return replace(resource, imports=imports, import_changes=changes)

    return make


@pytest.fixture
def run(tmp_path: Path) -> MemoryRun:
    return MemoryRun(tmp_path / "work" / "resource")


def ids_in(state: bytes) -> list[str]:
    return sorted(
        instance["attributes"]["id"]
        for each in json.loads(state)["resources"]
        for instance in each["instances"]
    )


def test_terraform_alone_can_import() -> None:
    assert isinstance(DRIVER, Importer)
    assert not isinstance(get_driver("fake"), Importer)


@pytest.mark.terraform
def test_everything_is_imported_and_nothing_else_done(importing: Any, run: MemoryRun) -> None:
    result = DRIVER.ensure(importing(ALL), run)

    assert result.outputs == {"id": "it-1"}
    assert ids_in(run.states[-1]) == sorted(ALL.values())
    assert not run.work_folder.exists()


@pytest.mark.terraform
def test_ids_arrive_as_they_were_given(content: Path, importing: Any, run: MemoryRun) -> None:
    odd = ['a"b', r"a\b\n", "a${b}", "%{if}", "$${a}", "$$", "a$", "%%{x}", "ü 中", "{}", "$$${x"]
    text = f'resource "terraform_data" "it" {{\n  count = {len(odd)}\n}}\n'
    (content / "main.tf").write_text(text)

    DRIVER.ensure(importing({f"terraform_data.it[{at}]": id_ for at, id_ in enumerate(odd)}), run)

    assert ids_in(run.states[-1]) == sorted(odd)


@pytest.mark.terraform
def test_what_would_do_more_is_refused_and_nothing_is_done(
    content: Path, importing: Any, run: MemoryRun
) -> None:
    with_input = MODULE.replace('"it" {\n', '"it" {\n  input = var.size\n')
    (content / "main.tf").write_text(with_input)
    one = {"terraform_data.it": "it-1"}

    with pytest.raises(DriverError) as refused:
        DRIVER.ensure(importing(one, size="s3cret"), run)

    assert str(refused.value).startswith(
        "Nothing was imported, because the module would also change terraform_data.it (input, output), "
        'create module.inner.terraform_data.deep, create terraform_data.each["$x"], '
    )
    assert refused.value.permanent is True
    assert run.states == []
    assert "s3cret" not in str(refused.value)
    assert not run.work_folder.exists()


@pytest.mark.terraform
def test_with_leave_the_rest_is_done_too(importing: Any, run: MemoryRun) -> None:
    DRIVER.ensure(importing({"terraform_data.it": "it-1"}, changes=True, size="large"), run)

    assert "it-1" in ids_in(run.states[-1])
    assert len(ids_in(run.states[-1])) == len(ALL)


@pytest.mark.terraform
def test_repeating_an_import_changes_nothing(importing: Any, run: MemoryRun) -> None:
    DRIVER.ensure(importing(ALL), run)
    states = len(run.states)

    DRIVER.ensure(importing(ALL), run)

    assert ids_in(run.states[-1]) == sorted(ALL.values())
    assert len(run.states) == states


@pytest.mark.terraform
def test_an_import_that_was_interrupted_goes_on(importing: Any, run: MemoryRun) -> None:
    DRIVER.ensure(importing({"terraform_data.it": "it-1"}, changes=True), run)
    first = json.loads(run.states[-1])
    first["resources"] = [each for each in first["resources"] if each["name"] == "it"]
    run.states.append(json.dumps(first).encode())

    DRIVER.ensure(importing(ALL), run)

    assert ids_in(run.states[-1]) == sorted(ALL.values())


@pytest.mark.terraform
def test_a_plan_that_a_lost_attempt_left_is_not_taken_for_the_import(
    importing: Any, run: MemoryRun
) -> None:
    run.work_folder.mkdir(parents=True)
    version = [str(find_terraform()), "version"]
    Tool.start(version, run=run, folder=run.work_folder, environment=run.environment)
    run.attempt += 1

    DRIVER.ensure(importing(ALL), run)

    assert "Following what the attempt before this one began" in run.text()
    assert ids_in(run.states[-1]) == sorted(ALL.values())


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("terraform_data.it", ""),
        ("terraform_data.many[1]", ""),
        ('terraform_data.each["a b"]', ""),
        ("module.inner.terraform_data.deep", ""),
        ("", "it ends early"),
        ("terraform_data", "it is not written as `type.name`"),
        ("terraform_data.it.id", "it is not written as `type.name`"),
        ("terraform_data.it extra", "' extra' is not expected in it"),
        ("terraform_data.it[*]", "'[*]' is not expected in it"),
        ('terraform_data.each["${x}"]', "has characters that are not taken"),
        ("terraform_data..it", "a name is expected at '.it'"),
        ("module.inner", "it is not written as `type.name`"),
        ("data.http.x", "it names a data source"),
        ("terraform_data.gone", "the module declares no terraform_data.gone"),
        ("module.gone.terraform_data.it", "the module declares no module.gone"),
        ("module.inner.terraform_data.it", "the module declares no terraform_data.it"),
        ("terraform_data.many", "terraform_data.many has `count`"),
        ('terraform_data.each[0]', "terraform_data.each has `for_each`"),
        ("terraform_data.it[0]", "nothing in brackets is taken"),
        ("module.inner[0].terraform_data.deep", "nothing in brackets is taken"),
    ],
)  # fmt: skip
def test_only_what_the_module_declares_is_imported(content: Path, address: str, told: str) -> None:
    if not told:
        assert check_imports(content, [(address, "x")]) == {address: "x"}
        return
    with pytest.raises(DriverError) as refused:
        check_imports(content, [(address, "x")])
    assert told in str(refused.value)


def test_all_that_is_wrong_is_told_at_once(content: Path) -> None:
    twice = [("terraform_data.it", "a"), ("terraform_data.it", "b")]

    with pytest.raises(DriverError) as refused:
        check_imports(
            content, [*twice, ("terraform_data.many[0]", ""), ("terraform_data.many[1]", "a\n")]
        )

    assert str(refused.value) == (
        "terraform_data.it cannot be imported: it is given twice.\n"
        "terraform_data.many[0] cannot be imported: its id is empty or has characters that cannot be "
        "printed.\n"
        "terraform_data.many[1] cannot be imported: its id is empty or has characters that cannot be "
        "printed."
    )


KEYS = st.one_of(
    st.none(), st.integers(0, 99), st.text("ab\"\\$%{} é", min_size=1).filter(lambda key: "${" not in key and "%{" not in key)
)  # fmt: skip
NAMES = st.from_regex(r"[a-z_][a-z0-9_-]{0,5}", fullmatch=True).filter(
    lambda name: name not in ("module", "data")
)


@given(st.lists(st.tuples(NAMES, KEYS), max_size=2), NAMES, NAMES, KEYS)
def test_an_address_is_read_as_it_is_written(
    modules: list[tuple[str, Any]], type_: str, name: str, key: Any
) -> None:
    address = Address(tuple(modules), type_, name, key)

    assert Address.read(str(address)) == address


def test_blocks_are_written_in_order() -> None:
    assert import_blocks({"b.x": 'i"d', "a.x": "${y}"}) == (
        'import {\n  to = a.x\n  id = "$${y}"\n}\n\nimport {\n  to = b.x\n  id = "i\\"d"\n}\n'
    )
