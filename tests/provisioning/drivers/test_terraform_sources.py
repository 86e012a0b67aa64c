from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

import pytest

from provisioning.drivers.base import DriverError
from provisioning.drivers.terraform.module import describe_module
from provisioning.drivers.terraform.sources import (
    refused_installed,
    refused_module,
    refused_provider,
)

ROOT = PurePosixPath()


@pytest.mark.parametrize(
    "source",
    [
        "./parts/network",
        "terraform-aws-modules/vpc/aws",
        "terraform-aws-modules/vpc/aws//modules/x",
        "registry.opentofu.org/a/b/c",
        "github.com/acme/modules",
        "git::https://github.com/acme/modules.git//vpc?ref=v1",
        "git@github.com:acme/modules.git",
        "git::ssh://git@github.com/acme/modules.git",
    ],
)
def test_a_trusted_source_is_taken(source: str) -> None:
    assert refused_module(source, ROOT) == ""


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("../outside", "leads out of the template's folder"),
        ("./a/../../b", "leads out of the template's folder"),
        ("/etc", "neither in the template's folder"),
        ("~/modules", "neither in the template's folder"),
        ("file:///srv/modules", "neither in the template's folder"),
        ("git::file:///srv/modules", "neither in the template's folder"),
        ("s3::https://github.com/x.zip", "neither in the template's folder"),
        ("http://github.com/x.zip", "neither https nor ssh"),
        ("git::http://127.0.0.1/x.git", "neither https nor ssh"),
        ("https://evil.example/x.zip", "comes from the host evil.example"),
        ("git::https://github.com@evil.example/x.git", "comes from the host evil.example"),
        ("git@evil.example:x.git", "comes from the host evil.example"),
        ("evil.example/a/b/c", "comes from the host evil.example"),
    ],
)
def test_another_source_is_refused(source: str, why: str) -> None:
    assert why in refused_module(source, ROOT)


def test_a_submodule_may_use_its_neighbours_within_the_folder() -> None:
    assert refused_module("../b", PurePosixPath("parts/a")) == ""
    assert "leads out" in refused_module("../../../b", PurePosixPath("parts/a"))


def test_providers_come_from_trusted_registries_only() -> None:
    assert refused_provider("hashicorp/aws") == ""
    assert refused_provider("registry.terraform.io/hashicorp/aws") == ""
    assert "comes from the host evil.example" in refused_provider("evil.example/a/b")


def test_the_operator_names_other_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONDUCTOR_TERRAFORM_HOSTS", "git.acme.test, registry.acme.test")
    assert refused_module("git::https://git.acme.test/x.git", ROOT) == ""
    assert "github.com" in refused_module("github.com/acme/modules", ROOT)
    assert refused_provider("registry.acme.test/acme/dock") == ""


@pytest.mark.parametrize("where", ["main.tf", "parts/a/main.tf"])
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('module "m" {\n  source = "git::file:///srv/x"\n}\n', "neither in the template's folder"),
        (
            'terraform {\n  required_providers {\n    x = { source = "evil.example/a/b" }\n  }\n}\n',
            "the provider 'evil.example/a/b' comes from the host evil.example",
        ),
    ],
)
def test_a_module_with_another_source_is_refused_with_its_file(
    tmp_path: Path, where: str, text: str, why: str
) -> None:
    (tmp_path / "parts/a").mkdir(parents=True)
    (tmp_path / "main.tf").write_text('output "x" {\n  value = 1\n}\n')
    (tmp_path / where).write_text(text)
    with pytest.raises(DriverError, match=f"^{where}: ") as refused:
        describe_module(tmp_path)
    assert why in str(refused.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            '{"module": {"m": {"source": "/srv"}}, "module": {}}',
            "the key 'module' stands twice in one object",
        ),
        (
            '{"module": {"m": {"source": "/srv"}, "m": {"source": "./a"}}}',
            "the key 'm' stands twice in one object",
        ),
        (
            '{"module": {"m": [{"source": "./a"}, {"source": "/srv"}]}}',
            "neither in the template's folder",
        ),
        (
            '{"terraform": [[{"required_providers": {"x": {"source": "evil.example/a/b"}}}]]}',
            "comes from the host evil.example",
        ),
    ],
)
def test_json_hides_no_source(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "x_override.tf.json").write_text(text)
    with pytest.raises(DriverError, match=r"^x_override\.tf\.json: ") as refused:
        describe_module(tmp_path)
    assert why in str(refused.value)


def _installed(folder: Path, *modules: tuple[str, str, str], provider: str = "") -> str:
    data = folder / ".terraform"
    (data / "modules").mkdir(parents=True)
    (data / "providers" / provider).mkdir(parents=True)
    rows = [{"Key": key, "Source": source, "Dir": place} for key, source, place in modules]
    (data / "modules" / "modules.json").write_text(json.dumps({"Modules": rows}))
    return refused_installed(folder, data)


def test_what_a_trusted_module_installs_from_trusted_hosts_is_taken(tmp_path: Path) -> None:
    assert not _installed(
        tmp_path,
        ("", "", "."),
        ("own", "./own", "own"),
        ("vpc", "registry.terraform.io/acme/vpc/aws", ".terraform/modules/vpc"),
        ("vpc.part", "../part", ".terraform/modules/vpc/part"),
        ("vpc.git", "git::https://github.com/acme/x.git?ref=v1", ".terraform/modules/vpc.git"),
        provider="registry.terraform.io/hashicorp/aws",
    )


def test_what_a_downloaded_module_takes_from_elsewhere_is_refused(tmp_path: Path) -> None:
    assert _installed(
        tmp_path,
        ("vpc", "registry.terraform.io/acme/vpc/aws", ".terraform/modules/vpc"),
        ("vpc.x", "git::https://evil.example/x.git", ".terraform/modules/vpc.x"),
    ).startswith(
        "in the module 'vpc.x', 'git::https://evil.example/x.git' comes from the host evil"
    )


def test_a_downloaded_module_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "module").mkdir()
    refused = _installed(tmp_path / "module", ("vpc.x", "../../../x", ".terraform/../../x"))
    assert refused == "the module 'vpc.x' leads out of the template's folder."


def test_a_provider_that_a_downloaded_module_takes_from_elsewhere_is_refused(
    tmp_path: Path,
) -> None:
    refused = _installed(tmp_path, provider="evil.example/acme/dock/1.0.0/linux_amd64")
    assert refused.startswith(
        "the provider 'evil.example/acme/dock' comes from the host evil.example"
    )
