from __future__ import annotations

import json
from typing import Any

import pytest

from provisioning.drivers.external_state import StateAccess
from provisioning.drivers.terraform.backends import (
    StateBackendError,
    check_backend,
    is_external,
    locate,
    override,
)

ID = "0a1b2c3d-0000-4000-8000-00000000000a"
S3 = {"type": "s3", "bucket": "states", "region": "eu-west-1"}
AZURE = {"type": "azurerm", "storage_account_name": "acct", "container_name": "states"}
CONSUL = {"type": "custom", "backend": "consul", "config": {"path": "conductor/${resource_id}"}}


def told(backend: dict[str, Any]) -> dict[str, Any]:
    """Return the backend block that the tool gets."""
    check_backend(backend)
    access = StateAccess("https://c/api/state/x", "run", "t0ken")
    document: dict[str, Any] = json.loads(override(locate(backend, ID), access))
    return dict(document["terraform"]["backend"])


@pytest.mark.parametrize(
    ("backend", "where", "block"),
    [
        (
            {"type": "local", "path": "/srv/states"},
            f"/srv/states/{ID}/terraform.tfstate",
            {"local": {"path": f"/srv/states/{ID}/terraform.tfstate"}},
        ),
        (
            {**S3, "use_path_style": True, "endpoints": {"s3": "http://127.0.0.1:9"}},
            f"s3://states/resources/{ID}.tfstate",
            {
                "s3": {
                    "bucket": "states",
                    "region": "eu-west-1",
                    "key": f"resources/{ID}.tfstate",
                    "use_lockfile": True,
                    "use_path_style": True,
                    "endpoints": {"s3": "http://127.0.0.1:9"},
                }
            },
        ),
        (
            {**AZURE, "key_prefix": "prod", "use_azuread_auth": True},
            f"https://acct.blob.core.windows.net/states/prod/{ID}.tfstate",
            {
                "azurerm": {
                    "storage_account_name": "acct",
                    "container_name": "states",
                    "key": f"prod/{ID}.tfstate",
                    "use_azuread_auth": True,
                }
            },
        ),
        (
            {"type": "gcs", "bucket": "states", "kms_encryption_key": "projects/p/keys/k"},
            f"gs://states/resources/{ID}/default.tfstate",
            {
                "gcs": {
                    "bucket": "states",
                    "prefix": f"resources/{ID}",
                    "kms_encryption_key": "projects/p/keys/k",
                }
            },
        ),
        (
            {"type": "pg", "conn_str": "postgres://me@db.example/states"},
            "PostgreSQL schema conductor_0a1b2c3d00004000800000000000000a",
            {
                "pg": {
                    "conn_str": "postgres://me@db.example/states",
                    "schema_name": "conductor_0a1b2c3d00004000800000000000000a",
                }
            },
        ),
        (
            {"type": "remote", "organization": "acme"},
            f"app.terraform.io/acme/conductor-{ID}",
            {
                "remote": {
                    "hostname": "app.terraform.io",
                    "organization": "acme",
                    "workspaces": {"name": f"conductor-{ID}"},
                }
            },
        ),
        (CONSUL, f"consul: {ID}", {"consul": {"path": f"conductor/{ID}"}}),
        (
            {"type": "http"},
            f"resources/{ID}",
            {
                "http": {
                    "address": "https://c/api/state/x",
                    "lock_address": "https://c/api/state/x",
                    "unlock_address": "https://c/api/state/x",
                    "lock_method": "LOCK",
                    "unlock_method": "UNLOCK",
                    "update_method": "POST",
                }
            },
        ),
    ],
    ids=lambda value: value.get("type") if isinstance(value, dict) else None,
)
def test_each_backend_is_told_where_the_state_of_the_resource_is(
    backend: dict[str, Any], where: str, block: dict[str, Any]
) -> None:
    assert told(backend) == block
    assert locate(backend, ID).location == where
    assert is_external(locate(backend, ID))


def test_managed_states_are_at_conductor() -> None:
    check_backend({"type": "managed"})
    location = locate({"type": "managed"}, ID)
    assert (location.location, dict(location.metadata)) == (f"resources/{ID}", {})
    assert not is_external(location)


def test_nothing_in_the_settings_is_expanded() -> None:
    block = told({**CONSUL, "config": {"path": "${resource_id}/${file('x')}%{if true}"}})
    assert block["consul"]["path"] == f"{ID}/$${{file('x')}}%%{{if true}}"


@pytest.mark.parametrize(
    ("backend", "problem"),
    [
        ("s3", "It must be an object"),
        ({}, "with a type of managed, http, local, s3"),
        ({"type": "floppy"}, "with a type of managed, http, local, s3"),
        ({"type": "s3", "bucket": "b"}, "s3 needs region."),
        ({**S3, "colour": "red"}, "s3 has no setting colour. There are acl, assume_role, bucket"),
        ({**S3, "encrypt": "yes"}, "encrypt must be true or false."),
        ({**S3, "bucket": ["b"]}, "bucket must be text."),
        ({"type": "managed", "path": "/x"}, "managed has no setting path. It takes none."),
        ({"type": "http", "address": "http://x"}, "http has no setting address. It takes none."),
        ({"type": "local", "path": "states"}, "path must be absolute"),
        ({"type": "pg", "schema_prefix": "Big-One"}, "schema_prefix must have 1 to 30 of a-z"),
        ({"type": "custom", "backend": "consul"}, "custom needs config."),
        ({**CONSUL, "config": {"path": "one"}}, "else all resources would share one state"),
        ({**CONSUL, "backend": 'x" {}'}, "backend must be the name of one of Terraform's"),
        ({**S3, "bucket": "b" * 251}, "bucket is too long: it has 250 characters at most."),
        ({**S3, "bucket": "b" * 250, "key_prefix": "p" * 250}, "Its settings are too long."),
    ],
)
def test_a_wrong_backend_is_refused_with_what_is_wrong(backend: Any, problem: str) -> None:
    with pytest.raises(StateBackendError) as refused:
        check_backend(backend)
    assert problem in str(refused.value)


@pytest.mark.parametrize(
    "backend",
    [
        {**S3, "access_key": "AKIAsecret"},
        {**S3, "secret_key": "sEcret"},
        {**S3, "token": "sEcret"},
        {**S3, "sse_customer_key": "x", "endpoints": {"s3": "https://me:sEcret@s3.example"}},
        {**S3, "assume_role": {"role_arn": "arn", "session_token": "sEcret"}},
        {**AZURE, "access_key": "sEcret"},
        {**AZURE, "sas_token": "sEcret"},
        {**AZURE, "client_secret": "sEcret"},
        {"type": "gcs", "bucket": "b", "credentials": "sEcret"},
        {"type": "gcs", "bucket": "b", "encryption_key": "sEcret"},
        {"type": "pg", "conn_str": "postgres://me:sEcret@db/states"},
        {"type": "pg", "conn_str": "host=db user=me password=sEcret"},
        {"type": "remote", "organization": "acme", "token": "sEcret"},
        {"type": "http", "password": "sEcret"},
        {**CONSUL, "config": {"path": "${resource_id}", "access_token": "sEcret"}},
        {**CONSUL, "config": {"path": "${resource_id}", "http_auth": [{"password": "sEcret"}]}},
        {**CONSUL, "config": {"path": "${resource_id}", "address": "https://me:sEcret@c"}},
    ],
)
def test_credentials_are_refused_and_not_repeated(backend: dict[str, Any]) -> None:
    with pytest.raises(StateBackendError, match="holds a credential") as refused:
        check_backend(backend)
    assert "manage.py credential set" in str(refused.value)
    assert "sEcret" not in str(refused.value)
