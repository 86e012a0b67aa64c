from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.conf import settings
from django.db import transaction
from pytest_django import DjangoDbBlocker

from provisioning.workers import runner
from provisioning.workers.lease import Lease
from tests.provisioning.place import Place, new_place


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file in which the fake driver notes what it did."""
    path = tmp_path / "ledger"
    path.touch()
    monkeypatch.setenv("CONDUCTOR_FAKE_LEDGER", str(path))
    return path


@contextmanager
def working_in(folder: Path) -> Iterator[pytest.MonkeyPatch]:
    """Let steps run in this process, without pauses, and keep their files in this folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "VAR_DIR", folder / "var")
        patch.setattr(settings, "CONDUCTOR_WORK_DIR", folder / "work")
        patch.setattr(runner, "RETRY_SECONDS", (0.0, 0.0))
        yield patch


@pytest.fixture
def place(db: None, tmp_path: Path, ledger: Path) -> Iterator[Place]:
    """Return an empty organisation whose steps run in this process."""
    with working_in(tmp_path):
        yield new_place()


@pytest.fixture(scope="module")
def lasting_place(
    django_db_setup: None,
    django_db_blocker: DjangoDbBlocker,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Place]:
    """Return an organisation that stays for all tests of a module, for many that only look at it.

    What fixtures of the module's scope add to it stays as well. Each test undoes its own, and after
    the last one everything is undone, so none of them may be one that commits (`transaction=True`).
    """
    folder = tmp_path_factory.mktemp("place")
    with working_in(folder) as patch, django_db_blocker.unblock(), transaction.atomic():
        patch.setattr(Lease, "_look", lambda lease: None)  # as `unasked_leases` does in a test
        yield new_place()
        transaction.set_rollback(True)
