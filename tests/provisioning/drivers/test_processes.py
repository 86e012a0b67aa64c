from __future__ import annotations

import os
import subprocess

import psutil
import pytest

from provisioning.drivers.processes import identity, is_alive


def test_a_process_is_known_while_it_lives() -> None:
    other = subprocess.Popen(["/bin/sleep", "60"])
    named = identity(other.pid)
    assert is_alive(named)
    assert named != identity()
    other.kill()
    assert os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(named)  # it waits to be reaped
    other.wait()
    assert not is_alive(named)


def test_another_process_of_the_same_number_is_another_one() -> None:
    pid, _, began = identity().partition(" ")
    ticks, _, boot = began.partition("@")
    assert not is_alive(f"{pid} {int(ticks) + 1}@{boot}")
    assert not is_alive(f"{pid} {ticks}@another boot")


def test_a_clock_that_is_set_changes_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    named = identity()
    monkeypatch.setattr(psutil, "boot_time", lambda: 1.0)
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert is_alive(named)


@pytest.mark.parametrize("named", ["", "nobody", "0 1@2", "-1 1@2", "1"])
def test_what_names_no_process_is_not_alive(named: str) -> None:
    assert not is_alive(named)
