from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from provisioning.drivers import secrets
from provisioning.drivers.secrets import SecretError, resolve_secrets, secrets_among


def ref(reference: str) -> dict[str, object]:
    return {"password": {"secretref": reference}}


def test_a_variable_is_read_with_its_prefix_wherever_it_is_referred_to() -> None:
    params = {"a": 1, "b": [{"c": {"secretref": "env:DB"}}], "d": {"secretref": "env:DB"}}

    assert resolve_secrets(params, {"CONDUCTOR_SECRET_DB": "x"}) == {
        "a": 1,
        "b": [{"c": "x"}],
        "d": "x",
    }


def test_no_other_variable_of_the_worker_can_be_reached() -> None:
    with pytest.raises(SecretError) as refused:
        resolve_secrets(ref("env:SECRET_KEY"), {"SECRET_KEY": "the-key"})

    assert str(refused.value) == (
        "The secret env:SECRET_KEY cannot be had: the worker has no variable "
        "CONDUCTOR_SECRET_SECRET_KEY."
    )
    assert refused.value.permanent


def test_a_file_is_read_without_its_last_line_break(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "password").write_text("x y\n")

    found = resolve_secrets(ref("file:db/password"), {"CONDUCTOR_SECRETS_DIR": str(tmp_path)})

    assert found == {"password": "x y"}


def test_only_the_last_line_break_is_left_out_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("one\n\n")

    found = resolve_secrets(ref("file:key"), {"CONDUCTOR_SECRETS_DIR": str(tmp_path)})

    assert found == {"password": "one\n"}


def test_links_in_a_circle_are_named(tmp_path: Path) -> None:
    (tmp_path / "key").symlink_to(tmp_path / "key")

    with pytest.raises(SecretError, match="file:key cannot be had"):
        resolve_secrets(ref("file:key"), {"CONDUCTOR_SECRETS_DIR": str(tmp_path)})


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "link"])
def test_no_file_outside_the_folder_can_be_reached(tmp_path: Path, path: str) -> None:
    (tmp_path / "outside").write_text("hidden")
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "outside")

    with pytest.raises(SecretError, match="not below") as refused:
        resolve_secrets(ref(f"file:{path}"), {"CONDUCTOR_SECRETS_DIR": str(folder)})

    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "no such file"), (b"", "is empty"), (b"\xff\xfe", "not UTF-8")],
)
def test_a_file_that_gives_nothing_is_named(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / "x").write_bytes(content)

    with pytest.raises(SecretError, match=f"file:x cannot be had: .*{reason}"):
        resolve_secrets(ref("file:x"), {"CONDUCTOR_SECRETS_DIR": str(tmp_path)})


def test_a_file_needs_the_folder() -> None:
    with pytest.raises(SecretError, match="CONDUCTOR_SECRETS_DIR is not set"):
        resolve_secrets(ref("file:x"), {})


def vault(place: str) -> str:
    if place == "broken":
        raise RuntimeError("token hunter2 was refused")
    return f"value of {place}"


def test_an_entry_point_serves_its_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("vault", f"{__name__}:vault", "conductor.secrets")
    monkeypatch.setattr(
        secrets, "entry_points", lambda **wanted: [point] if wanted.get("name") == "vault" else []
    )

    assert resolve_secrets(ref("vault:kv/db"), {}) == {"password": "value of kv/db"}
    with pytest.raises(SecretError, match=r"vault:broken .*RuntimeError") as refused:
        resolve_secrets(ref("vault:broken"), {})
    assert "hunter2" not in str(refused.value)


def test_an_unknown_scheme_is_named_with_those_there_are() -> None:
    with pytest.raises(SecretError, match="vautl is none of env, file"):
        resolve_secrets(ref("vautl:kv/db"), {})


def test_the_secrets_of_an_environment_are_known_by_name_and_in_addresses() -> None:
    variables = {
        "AWS_REGION": "eu-west-1",
        "AWS_SECRET_ACCESS_KEY": "key",
        "GITHUB_TOKEN": "token",
        "PATH": "/usr/bin:/bin",
        "https_proxy": "http://me:p%40ss@proxy.example.org:3128/",
        "odd": "http://[",
    }
    assert [*secrets_among(variables)] == ["key", "token", "p%40ss", "p@ss"]


@pytest.mark.parametrize(
    ("name", "value", "secrets"),
    [
        ("https_proxy", "me:pass@proxy:3128", ["pass"]),
        ("NO_PROXY", "localhost,127.0.0.1,[::1]", []),
        ("ODD", "urn:me@example.org", []),
        ("PG_CONN_STR", "host=db password='two words' user=me", ["two words"]),
        ("PG_CONN_STR", "postgres://db/states?password=p%26q&sslmode=off", ["p%26q", "p&q"]),
        ("TERRAFORM_VAULT_SKIP_CHILD_TOKEN", "True", []),
    ],
)
def test_a_password_is_known_in_whatever_a_variable_holds(
    name: str, value: str, secrets: list[str]
) -> None:
    assert [*secrets_among({name: value})] == secrets
