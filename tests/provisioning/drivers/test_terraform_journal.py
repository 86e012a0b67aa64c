from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.drivers.external_state import Event, Orphan
from provisioning.drivers.terraform.installation import tool_names
from provisioning.drivers.terraform.journal import Journal, event_of, import_block, settle
from provisioning.drivers.terraform.state import State, quoted
from tests.provisioning.drivers.runs import MemoryRun


def begun(address: str, action: str = "create", id_: str = "") -> Event:
    return Event("apply_start", action, address, "thing", "id" if id_ else "", id_)


def done(address: str, id_: str = "", action: str = "create") -> Event:
    return Event("apply_complete", action, address, "thing", "id" if id_ else "", id_)


def holding(**ids: str) -> State:
    """Return a state that holds things by name and id."""
    resources = [
        {
            "mode": "managed",
            "type": "thing",
            "name": name,
            "instances": [{"attributes": {"id": id_}}],
        }
        for name, id_ in ids.items()
    ]
    state = State.read(json.dumps({"serial": 1, "lineage": "a", "resources": resources}).encode())
    assert state is not None
    return state


A, UNKNOWN = Orphan("thing.a", "thing", "id", "i-1"), Orphan("thing.a", "thing")


@pytest.mark.parametrize(
    ("events", "state", "killed", "left"),
    [
        ([begun("thing.a"), done("thing.a", "i-1")], None, True, {A}),
        ([begun("thing.a"), done("thing.a", "i-1")], holding(a="i-1"), True, set()),
        ([begun("thing.a"), done("thing.a", "i-1")], holding(moved="i-1"), True, set()),
        ([begun("thing.a"), done("thing.a", "i-1")], holding(a="i-2"), True, {A}),
        ([begun("thing.a"), done("thing.a", "i-1")], None, False, {A}),
        ([begun("thing.a")], None, True, {UNKNOWN}),
        ([begun("thing.a")], holding(a="i-7"), True, set()),
        ([begun("thing.a")], None, False, set()),
        (
            [begun("thing.a"), Event("apply_errored", "create", "thing.a", "thing")],
            None,
            True,
            set(),
        ),
        (
            [
                done("thing.a", "i-1"),
                begun("thing.a", "delete", "i-1"),
                done("thing.a", "", "delete"),
            ],
            None,
            True,
            set(),
        ),
        ([begun("thing.a", "delete", "i-1")], holding(a="i-1"), True, set()),
        ([begun("thing.a", "delete", "i-1"), done("thing.a", "", "delete")], None, True, set()),
    ],
)
def test_what_a_tool_may_have_left(
    events: list[Event], state: State | None, killed: bool, left: set[Orphan]
) -> None:
    assert settle(events, [], state, killed=killed) == left


def test_a_suspicion_goes_when_a_later_state_holds_the_thing() -> None:
    assert settle([], [A], holding(a="i-2"), killed=False) == {A}
    assert settle([], [A], holding(a="i-1"), killed=False) == set()


def test_a_suspicion_goes_when_the_thing_was_destroyed() -> None:
    events = [begun("thing.a", "delete", "i-1"), done("thing.a", "", "delete")]
    assert settle(events, [A], None, killed=False) == set()


def test_a_thing_begun_and_made_again_is_still_suspected() -> None:
    events = [begun("thing.a"), done("thing.a", "i-2")]
    (left,) = settle(events, [UNKNOWN], holding(a="i-2"), killed=False)
    assert left == Orphan("thing.a", "thing", remade=True)
    assert settle([], [left], holding(a="i-2"), killed=False) == {left}


def test_the_same_id_of_another_type_is_another_thing() -> None:
    other = Event("apply_complete", "create", "role.a", "role", "id", "i-1")
    assert settle([other], [], holding(a="i-1"), killed=True) == {
        Orphan("role.a", "role", "id", "i-1")
    }


EVENTS = st.builds(
    Event,
    st.sampled_from(["apply_start", "apply_complete", "apply_errored"]),
    st.sampled_from(["create", "delete"]),
    st.sampled_from(["thing.a", "thing.b"]),
    st.just("thing"),
    st.just("id"),
    st.sampled_from(["", "i-1", "i-2"]),
)


@given(st.lists(EVENTS), st.booleans())
def test_settling_twice_changes_nothing(events: list[Event], killed: bool) -> None:
    state = holding(a="i-1")
    once = settle(events, [], state, killed=killed)
    assert settle([], once, state, killed=killed) == once


@given(st.lists(EVENTS))
def test_whatever_is_in_the_state_is_not_suspected(events: list[Event]) -> None:
    left = settle(events, [], holding(a="i-1", b="i-2"), killed=True)
    assert not {each for each in left if each.id_value}


def _message(**hook: Any) -> dict[str, Any]:
    resource = {"addr": "thing.a", "resource_type": "thing"}
    return {"type": "apply_complete", "hook": {"resource": resource, "action": "create", **hook}}


def test_an_event_is_read_from_the_log() -> None:
    assert event_of(_message(id_key="id", id_value="i-1")) == done("thing.a", "i-1")


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"type": "apply_complete"},
        {"type": "apply_complete", "hook": []},
        {"type": "apply_complete", "hook": {"resource": "x", "action": "create"}},
        _message(action="update"),
        _message(action=["create"]),
        _message(resource={}),
        _message(id_value="x" * 1001),
        {**_message(), "type": "refresh_start"},
    ],
)
def test_other_messages_are_no_events(message: dict[str, Any]) -> None:
    assert event_of(message) is None


def test_what_cannot_be_stored_is_replaced() -> None:
    event = event_of(_message(id_key="id", id_value="a\0b\ud800"))
    assert event is not None
    assert event.id_value == "ab?"


@pytest.mark.parametrize(
    ("address", "id_", "block"),
    [
        ("aws_vpc.a", "vpc-1", 'import {\n  to = aws_vpc.a\n  id = "vpc-1"\n}\n'),
        (
            'module.m["x"].aws_vpc.a[0]',
            'q"${file("/etc/passwd")}\n\\%{if true}\x1b[2J',
            (
                'import {\n  to = module.m["x"].aws_vpc.a[0]\n'
                '  id = "q\\"$${file(\\"/etc/passwd\\")}\\n\\\\%%{if true}\\u001b[2J"\n}\n'
            ),
        ),
        ("a.b", "", "# a.b: its making was begun, and its id was never heard.\n"),
        (
            "a.b\n}\nevil {",
            "x",
            "# \"a.b\\n}\\nevil {\" cannot be imported: '\\n}\\nevil {' is not expected in it.\n",
        ),
        (
            'a.b["${file(1)}"]',
            "x",
            (
                '# "a.b[\\"$${file(1)}\\"]" cannot be imported: the key \'${file(1)}\' has characters that '
                "are not taken.\n"
            ),
        ),
        (
            "data.a.b",
            "x",
            '# "data.a.b" cannot be imported: it names a data source, and only resources are imported.\n',
        ),
    ],
)
def test_an_import_block_is_what_it_seems(address: str, id_: str, block: str) -> None:
    assert import_block(Orphan(address, "thing", "id", id_)) == block


@pytest.mark.terraform
def test_terraform_reads_a_quoted_text_as_it_was(tmp_path: Path) -> None:
    texts = [
        "".join(map(chr, range(1, 256))),
        '${a} $${b} $$${c} $$$${d} %{e} %%{f} $ % {} "\\" \\n',
        "\u202e\u2028 \U0001f600 end$",
    ]
    lines = [
        f'output "o{number}" {{\n  value = {quoted(text)}\n}}\n'
        for number, text in enumerate(texts)
    ]
    (tmp_path / "main.tf").write_text("".join(lines), encoding="utf-8")
    for words in (["init"], ["apply", "-auto-approve"]):
        subprocess.run([tool_names()[0], *words], cwd=tmp_path, check=True, capture_output=True)
    state = State.read((tmp_path / "terraform.tfstate").read_bytes())
    assert state is not None
    assert state.values() == {f"o{number}": text for number, text in enumerate(texts)}


def _said(kind: str, address: str, id_: str = "") -> dict[str, Any]:
    resource = {"addr": address, "resource_type": "thing"}
    named = {"id_key": "id", "id_value": id_} if id_ else {}
    return {"type": kind, "hook": {"resource": resource, "action": "create", **named}}


@pytest.fixture
def run(tmp_path: Path) -> MemoryRun:
    return MemoryRun(tmp_path)


def test_of_a_shipped_state_what_is_made_at_once_is_not_noted(run: MemoryRun) -> None:
    journal = Journal(run, shipped=True)
    journal.hear(_said("apply_start", "thing.a"))
    journal.hear(_said("apply_complete", "thing.a", "i-1"))
    journal.note()
    assert run.external_state.events == {}


def test_of_a_shipped_state_what_is_being_made_is_noted_and_its_end_too(run: MemoryRun) -> None:
    journal = Journal(run, shipped=True)
    journal.hear(_said("apply_start", "thing.a"))
    journal.note()
    journal.hear(_said("apply_complete", "thing.a", "i-1"))
    journal.note()
    assert run.external_state.events == {0: begun("thing.a"), 1: done("thing.a", "i-1")}


def test_what_a_killed_tool_was_making_is_suspected(run: MemoryRun) -> None:
    journal = Journal(run, shipped=True)
    journal.hear(_said("apply_start", "thing.a"))
    journal.note()
    journal.settle(holding(b="i-2"), killed=True)
    assert (journal.suspects, run.external_state.orphans) == (True, {UNKNOWN})
    assert run.text() == (
        "One thing may exist that the state does not hold:\n"
        "# thing.a: its making was begun, and its id was never heard.\n"
    )


def test_the_end_of_a_tool_that_was_followed_settles_what_another_attempt_noted(
    run: MemoryRun,
) -> None:
    run.external_state.events = {0: begun("thing.a")}
    journal = Journal(run, shipped=True)
    journal.resume()
    journal.settle(holding(a="i-1"), killed=False)
    assert (run.external_state.events, journal.suspects) == ({}, False)


def test_what_was_begun_is_suspected_also_when_it_was_made_again_at_once(run: MemoryRun) -> None:
    run.external_state.orphans = frozenset({UNKNOWN})
    journal = Journal(run, shipped=True)
    journal.settle(None, killed=True)
    journal.hear(_said("apply_start", "thing.a"))
    journal.hear(_said("apply_complete", "thing.a", "i-2"))
    journal.note()
    journal.settle(holding(a="i-2"), killed=False)
    Journal(run, shipped=True).settle(holding(a="i-2"), killed=True)
    assert run.external_state.orphans == {Orphan("thing.a", "thing", remade=True)}
