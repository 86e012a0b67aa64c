from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from provisioning.drivers import get_driver
from provisioning.drivers.base import DriverError, DriverInput, LeaseLostError
from tests.provisioning.drivers.runs import MemoryRun, driver_input, outputs

DRIVER = get_driver("script")

# Answers the question it was asked, and counts in its state.
ECHO = """#!/usr/bin/env python3
import json, sys
question = json.load(sys.stdin)
count = question["resource_state"].get("count", 0) + 1
print(json.dumps({
    "resource_state": {"count": count},
    "resource_outputs": {"question": question, "count": count, "args": sys.argv[1:]},
    "shared_state": {"seen": {"a": count}},
}))
"""


@pytest.fixture
def run(tmp_path: Path) -> MemoryRun:
    return MemoryRun(tmp_path / "work" / "resource")


def _script(tmp_path: Path, text: str, **changes: Any) -> DriverInput:
    content = tmp_path / "content"
    content.mkdir(exist_ok=True)
    (content / "make").write_text(text)
    (content / "make").chmod(0o755)
    config = {"command": "make"} | changes.pop("config", {})
    return driver_input(content, config=config, **changes)


def _answering(tmp_path: Path, answer: str) -> DriverInput:
    return _script(tmp_path, f"#!/bin/sh\ncat > /dev/null\ncat <<'EOT'\n{answer}\nEOT\n")


def test_the_question_is_the_one_of_the_contract(tmp_path: Path, run: MemoryRun) -> None:
    resource = _script(tmp_path, ECHO, params={"size": 3}, config={"args": ["a", "$HOME"]})
    found = DRIVER.ensure(resource, run).outputs
    assert found["args"] == ["a", "$HOME"]
    question = found["question"]
    assert question.pop("mount_directory_path").endswith("/mounts")
    assert question.pop("workload_services")["api"]["ports"]["80"] == {
        "name": "http",
        "port": 80,
        "target_port": 80,
        "protocol": "TCP",
    }
    assert question == {
        "resource_uid": "thing.default#shop.db",
        "resource_type": "thing",
        "resource_class": "default",
        "resource_id": "shop.db",
        "resource_params": {"size": 3},
        "resource_metadata": {},
        "source_workload": "web",
        "resource_state": {},
        "shared_state": {},
        "compose_project_name": "shop",
    }


def test_state_is_kept_between_runs(tmp_path: Path, run: MemoryRun) -> None:
    resource = _script(tmp_path, ECHO)
    DRIVER.ensure(resource, run)
    assert DRIVER.ensure(resource, run).outputs["count"] == 2
    assert json.loads(run.states[-1]) == {
        "resource_state": {"count": 2},
        "shared_state": {"seen": {"a": 2}},
    }


@pytest.mark.parametrize("action", [DRIVER.ensure, DRIVER.destroy])
def test_an_answer_that_could_not_be_stored_is_heard_by_the_next_attempt(
    tmp_path: Path, run: MemoryRun, action: Any
) -> None:
    counting = f"#!/bin/sh\ncat > /dev/null\necho ran >> {tmp_path}/out/ran\n"
    text = counting + """echo '{"resource_state": {"id": 7}}'\n"""
    resource = _script(tmp_path, text, config={"destroy_args": ["gone"]})
    (tmp_path / "out").mkdir()
    run.fenced = True
    with pytest.raises(LeaseLostError):
        action(resource, run)
    again = MemoryRun(run.work_folder, attempt=2, recovering=True)
    action(resource, again)
    assert (tmp_path / "out" / "ran").read_text() == "ran\n"
    assert len(again.states) == 1
    assert not run.work_folder.exists()


def test_shared_state_is_patched_as_json_merge_patch(tmp_path: Path, run: MemoryRun) -> None:
    run.states.append(b'{"shared_state": {"a": {"b": 1, "c": 2}, "d": 3}}')
    DRIVER.ensure(
        _answering(tmp_path, '{"shared_state": {"a": {"b": null, "x": {"y": null}}, "d": [1]}}'),
        run,
    )
    shared = json.loads(run.states[-1])["shared_state"]
    assert shared == {"a": {"c": 2, "x": {}}, "d": [1]}


def test_declared_outputs_are_sensitive_and_masked(tmp_path: Path, run: MemoryRun) -> None:
    text = '#!/bin/sh\ncat >/dev/null\necho \'{"resource_outputs": {"password": "hunter22"}}\'\n'
    resource = _script(tmp_path, text, outputs=outputs(sensitive=("password",)))
    assert DRIVER.ensure(resource, run).sensitive == {"password"}
    assert run.masked == {"hunter22"}
    assert "hunter22" not in run.text()


def test_standard_error_is_the_log(tmp_path: Path, run: MemoryRun) -> None:
    DRIVER.ensure(_script(tmp_path, "#!/bin/sh\necho working >&2\necho '{}'\n"), run)
    assert run.logged == [("stderr", "info", "working\n")]


def test_a_failing_command_is_told_with_its_last_words(tmp_path: Path, run: MemoryRun) -> None:
    with pytest.raises(DriverError, match=r"make failed \(exit status 4\): no quota") as failed:
        DRIVER.ensure(_script(tmp_path, "#!/bin/sh\necho no quota >&2\nexit 4\n"), run)
    assert failed.value.permanent is False
    assert run.states == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("hello", "did not answer with JSON"),
        ("[]", "JSON that is no object"),
        ('{"outputs": {}}', "'outputs', which the contract lacks"),
        ('{"compose_services": {"a": {}}}', "'compose_services', which describes Docker Compose"),
        ('{"resource_outputs": []}', "'resource_outputs' must be an object"),
    ],
)
def test_a_wrong_answer_is_refused(
    tmp_path: Path, run: MemoryRun, answer: str, message: str
) -> None:
    with pytest.raises(DriverError, match=message) as failed:
        DRIVER.ensure(_answering(tmp_path, answer), run)
    assert failed.value.permanent is True
    assert run.states == []


def test_destroy_runs_the_command_only_with_words_for_it(tmp_path: Path, run: MemoryRun) -> None:
    ledger = tmp_path / "ledger"
    text = f'#!/bin/sh\necho "$@" >> {ledger}\n'
    DRIVER.destroy(_script(tmp_path, text), run)
    assert not ledger.exists()
    DRIVER.destroy(_script(tmp_path, text, config={"destroy_args": ["deprovision", "now"]}), run)
    assert ledger.read_text() == "deprovision now\n"
    assert run.states[-1] == b"{}"


def test_a_failing_destroy_keeps_the_state(tmp_path: Path, run: MemoryRun) -> None:
    resource = _script(tmp_path, "#!/bin/sh\nexit 1\n", config={"destroy_args": ["x"]})
    with pytest.raises(DriverError):
        DRIVER.destroy(resource, run)
    assert run.states == []


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "config.command must name"),
        ({"command": "no-such-program-anywhere"}, "there is no 'no-such-program-anywhere'"),
        ({"command": "../../bin/sh"}, "there is no '../../bin/sh'"),
        ({"command": "plain"}, "plain is not executable"),
    ],
)
def test_a_template_without_a_command_is_refused(
    tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    (tmp_path / "plain").write_text("")
    with pytest.raises(DriverError, match=message):
        DRIVER.describe(tmp_path, config)


def test_a_command_may_be_a_program_on_the_path(tmp_path: Path) -> None:
    assert DRIVER.describe(tmp_path, {"command": "cat"}).outputs == ()
