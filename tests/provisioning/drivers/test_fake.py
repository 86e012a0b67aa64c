from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from provisioning.drivers import get_driver
from provisioning.drivers.base import DriverError, StoppedError
from tests.provisioning.drivers.runs import MemoryRun, driver_input, outputs

FAKE = get_driver("fake")


def test_outputs_are_made_up_or_given(tmp_path: Path) -> None:
    config = {"outputs": {"port": 5432}}
    resource = driver_input(tmp_path, config=config, outputs=outputs("host", "port"))
    result = FAKE.ensure(resource, MemoryRun(tmp_path))
    assert result.outputs == {"host": "fake-host", "port": 5432}


def test_it_fails_as_often_as_told(tmp_path: Path) -> None:
    resource = driver_input(tmp_path, params={"fail": "No luck.", "fail_times": 2})
    for attempt in (1, 2):
        with pytest.raises(DriverError, match=r"^No luck\.$") as failed:
            FAKE.ensure(resource, MemoryRun(tmp_path, attempt=attempt))
        assert failed.value.permanent is False
    assert FAKE.ensure(resource, MemoryRun(tmp_path, attempt=3)).outputs == {}


def test_a_permanent_failure_says_so_and_writes_no_ledger(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    resource = driver_input(
        tmp_path, params={"fail": "Never.", "permanent": True}, config={"ledger": str(ledger)}
    )
    with pytest.raises(DriverError) as failed:
        FAKE.ensure(resource, MemoryRun(tmp_path))
    assert failed.value.permanent is True
    assert not ledger.exists()


def test_waiting_ends_at_the_deadline(tmp_path: Path) -> None:
    begin = time.monotonic()
    run = MemoryRun(tmp_path, deadline=begin + 0.1)
    with pytest.raises(StoppedError) as stopped:
        FAKE.ensure(driver_input(tmp_path, params={"wait": 30}), run)
    assert stopped.value.reason == "timed out"
    assert time.monotonic() - begin < 5


def test_the_ledger_gets_a_line_for_each_thing_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = tmp_path / "ledger"
    monkeypatch.setenv("CONDUCTOR_FAKE_LEDGER", str(ledger))
    resource = driver_input(tmp_path, resource_id="r1")
    FAKE.ensure(resource, MemoryRun(tmp_path, attempt=2))
    FAKE.destroy(resource, MemoryRun(tmp_path))
    assert ledger.read_text() == f"create r1 {os.getpid()} 2\ndestroy r1 {os.getpid()} 1\n"
