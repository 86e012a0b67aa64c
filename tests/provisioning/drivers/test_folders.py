from __future__ import annotations

import os
from pathlib import Path

import pytest

from provisioning.drivers.base import DriverError
from provisioning.drivers.folders import read_left, write_private


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """Return a file that a tool has no business with."""
    path = tmp_path / "elsewhere"
    path.write_text("secret")
    return path


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("{}")
    assert read_left(tmp_path / "state") == b"{}"


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_left(tmp_path / "state")


@pytest.mark.parametrize("plant", [Path.symlink_to, Path.hardlink_to])
def test_a_link_is_not_read(tmp_path: Path, secret: Path, plant: object) -> None:
    state = tmp_path / "state"
    plant(state, secret)  # type: ignore[operator]
    with pytest.raises(DriverError, match="state in the tool's folder is no file of its own"):
        read_left(state)


def test_a_pipe_and_a_folder_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(DriverError, match="no file of its own"):
            read_left(path)


def test_a_file_without_end_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "state").open("wb") as file:
        file.truncate(11)
    with pytest.raises(DriverError, match="state has 11 bytes: more than 10 are not read"):
        read_left(tmp_path / "state", most=10)


def test_what_is_written_goes_through_no_link(tmp_path: Path, secret: Path) -> None:
    for name in ("values", ".values.new"):
        (tmp_path / name).symlink_to(secret)
    write_private(tmp_path / "values", b"mine")
    assert secret.read_text() == "secret"
    assert (tmp_path / "values").read_text() == "mine"
    assert not (tmp_path / "values").is_symlink()


def test_what_is_written_takes_the_place_of_a_folder(tmp_path: Path) -> None:
    for name in ("values", ".values.new"):
        (tmp_path / name / "more").mkdir(parents=True)
    write_private(tmp_path / "values", b"mine")
    assert (tmp_path / "values").read_text() == "mine"
