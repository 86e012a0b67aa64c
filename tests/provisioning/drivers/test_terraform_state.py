from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from provisioning.drivers.base import LeaseLostError
from provisioning.drivers.terraform.backends import locate
from provisioning.drivers.terraform.messages import Messages
from provisioning.drivers.terraform.shipping import Shipper
from provisioning.drivers.terraform.state import State
from tests.provisioning.drivers.runs import MemoryRun


def _state(serial: int, lineage: str = "a", **more: Any) -> bytes:
    return json.dumps({"serial": serial, "lineage": lineage, **more}).encode()


def new_shipper(run: MemoryRun) -> Shipper:
    return Shipper(run, run.work_folder, locate({"type": "managed"}, "0a1b"))


@pytest.fixture
def run(tmp_path: Path) -> MemoryRun:
    return MemoryRun(tmp_path)


@pytest.fixture
def shipper(run: MemoryRun) -> Shipper:
    return new_shipper(run)


@pytest.mark.parametrize("raw", [None, b"", b'{"serial": 1', b"[]", b'{"serial": 1}', b'"x"'])
def test_half_a_state_is_none(raw: bytes | None) -> None:
    assert State.read(raw) is None


def test_only_newer_states_of_the_same_lineage_are_shipped(
    run: MemoryRun, shipper: Shipper
) -> None:
    for raw in (_state(3), _state(3), _state(2), _state(9, "b"), b'{"serial": 4', _state(5)):
        shipper.ship(raw)
    assert run.states == [_state(3), _state(5)]


def test_a_torn_file_is_looked_at_again(run: MemoryRun, shipper: Shipper) -> None:
    file = run.work_folder / "terraform.tfstate"
    file.write_bytes(_state(1)[:10])
    shipper.tick()
    file.write_bytes(_state(1))
    shipper.tick()
    assert run.states == [_state(1)]
    assert run.written_at == [file.stat().st_mtime]


def test_an_errored_state_is_picked_up(run: MemoryRun, shipper: Shipper) -> None:
    (run.work_folder / "errored.tfstate").write_bytes(_state(7))
    shipper.collect()
    assert run.states == [_state(7)]


def test_what_an_orphan_wrote_last_is_taken_and_stored(run: MemoryRun) -> None:
    new_shipper(run).ship(_state(1))
    (run.work_folder / "terraform.tfstate").write_bytes(_state(4))
    restored = new_shipper(run).restore()
    assert restored is not None
    assert restored.serial == 4
    assert run.states == [_state(1), _state(4)]


def test_a_state_that_may_have_been_stored_just_before_the_worker_died_counts_as_own(
    run: MemoryRun, shipper: Shipper
) -> None:
    shipper.ship(_state(1))
    run.fenced = True
    with pytest.raises(LeaseLostError):
        shipper.ship(_state(2))
    run.fenced = False
    run.states.append(_state(2))  # it had arrived, though the answer was lost
    (run.work_folder / "terraform.tfstate").write_bytes(_state(3))
    new_shipper(run).restore()
    assert run.states == [_state(1), _state(2), _state(3)]


def test_states_are_shipped_although_nothing_can_be_noted(run: MemoryRun, shipper: Shipper) -> None:
    (run.work_folder / "shipped.json").mkdir()
    shipper.ship(_state(1))
    shipper.ship(_state(2))
    assert run.states == [_state(1), _state(2)]


def test_files_with_states_are_for_their_owner_only(run: MemoryRun, shipper: Shipper) -> None:
    run.states.append(_state(1))
    shipper.restore()
    assert (run.work_folder / "terraform.tfstate").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("more", [{"type": "log"}, {}])
def test_an_emergency_state_dump_is_stored_and_never_logged(
    run: MemoryRun, shipper: Shipper, more: dict[str, str]
) -> None:
    messages = Messages(run, shipper.ship)
    dumped = '{"serial": 5, "lineage": "a", "n": 1.10, "outputs": {"p": {"value": "hunter22"}}}'
    line = json.dumps({"@level": "error", "@message": "Emergency state dump", "state": 0, **more})
    messages.line("stdout", line.replace('"state": 0', f'"state": {dumped}'))
    assert run.states == [dumped.encode()]
    assert "hunter22" not in run.text()
    assert "rescued" in run.text()


def test_errors_are_told_with_file_and_line(run: MemoryRun, shipper: Shipper) -> None:
    messages = Messages(run, shipper.ship)
    diagnostic = {
        "severity": "error",
        "summary": "Invalid value",
        "detail": "Too \x1b[31mbig.",
        "address": "a.b",
        "range": {"filename": "main.tf", "start": {"line": 3, "column": 1}},
    }
    messages.line("stdout", json.dumps({"type": "diagnostic", "diagnostic": diagnostic}))
    assert messages.summary() == "main.tf:3: Invalid value: Too big. (a.b)"
    assert run.logged[0][1] == "error"


def test_without_a_diagnostic_the_last_lines_are_told(run: MemoryRun, shipper: Shipper) -> None:
    messages = Messages(run, shipper.ship)
    messages.line("stderr", "panic: everything")
    assert messages.summary() == "panic: everything"


@pytest.mark.parametrize(
    "line", ["{", "[1]", '{"state": 3}', '{"type": "diagnostic", "diagnostic": 3}', "{}", ""]
)
def test_odd_lines_do_no_harm(run: MemoryRun, shipper: Shipper, line: str) -> None:
    Messages(run, shipper.ship).line("stdout", line)
    assert run.states == []


def test_what_a_state_marks_sensitive_is_found_in_outputs_and_attributes() -> None:
    def step(kind: str, value: object) -> dict[str, object]:
        return {"type": kind, "value": value}

    attributes = {"password": "one", "users": [{"name": "a"}, {"key": "two"}], "tags": {"x": "no"}}
    paths = [
        [step("get_attr", "password")],
        [
            step("get_attr", "users"),
            step("index", {"value": 1, "type": "number"}),
            step("get_attr", "key"),
        ],
        [step("get_attr", "gone"), step("index", {"value": "x", "type": "string"})],
    ]
    instance = {"attributes": attributes, "sensitive_attributes": paths}
    state = State.read(
        json.dumps(
            {
                "serial": 1,
                "lineage": "a",
                "outputs": {
                    "plain": {"value": "no"},
                    "secret": {"value": "three", "sensitive": True},
                },
                "resources": [
                    {"mode": mode, "type": "t", "name": "n", "instances": [instance]}
                    for mode in ("managed", "data")
                ],
            }
        ).encode()
    )
    assert state is not None
    assert state.secrets == ("three", "one", "two", None, "one", "two", None)
