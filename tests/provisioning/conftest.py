from __future__ import annotations

from pathlib import Path

import pytest
from django.conf import LazySettings

from provisioning.workers import runner
from tests.provisioning.place import Place, new_place


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file in which the fake driver notes what it did."""
    path = tmp_path / "ledger"
    path.touch()
    monkeypatch.setenv("CONDUCTOR_FAKE_LEDGER", str(path))
    return path


@pytest.fixture
def place(
    db: None, tmp_path: Path, settings: LazySettings, monkeypatch: pytest.MonkeyPatch, ledger: Path
) -> Place:
    """Return an empty organisation whose steps run in this process."""
    settings.VAR_DIR = tmp_path / "var"
    settings.CONDUCTOR_WORK_DIR = tmp_path / "work"
    monkeypatch.setattr(runner, "RETRY_SECONDS", (0.0, 0.0))
    return new_place()
