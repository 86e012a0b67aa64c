from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction

from provisioning.models import (
    Application,
    AuditEvent,
    Environment,
    Organisation,
    ResourceTemplate,
    ResourceTemplateVersion,
    Team,
    TemplateRule,
)
from provisioning.services.catalog import (
    CatalogError,
    DamagedContentError,
    deprecate_version,
    newest,
    sync_catalog,
    unpack,
)
from provisioning.services.catalog.address import settled_host
from provisioning.services.catalog.source import _repository
from provisioning.services.people import NotAllowedError, system_user

Sync = Callable[..., list[Any]]

ALPHA = """\
name: alpha
type: cache
version: 1.0.0
driver: template
description: A cache.
params:
  size: {type: integer, default: 3}
outputs:
  host: {description: Where it is.}
  password: {sensitive: true}
config:
  outputs: {host: "cache-${params.size}", password: secret}
"""


HEAD = "name: a\ntype: qu\nversion: 1.0.0\ndriver: fake\n"


@pytest.fixture
def acme(db: None) -> Organisation:
    return Organisation.objects.create(name="acme")


@pytest.fixture
def sync(acme: Organisation, tmp_path: Path) -> Sync:
    """Sync the folder `tmp_path/catalog`, or another source."""

    def run(source: str = "") -> list[Any]:
        source = source or str(tmp_path / "catalog")
        return sync_catalog(organisation=acme, source=source, actor=system_user())

    return run


def write(tmp_path: Path, name: str, text: str, **files: str) -> Path:
    """Write a template's folder."""
    folder = tmp_path / "catalog" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "template.yaml").write_text(text)
    for file, content in files.items():
        (folder / file).write_text(content)
    return folder


def problems(sync: Sync, source: str = "") -> list[tuple[int, str, str]]:
    """Sync what must be refused; return line, message and hint of every problem."""
    before = list(ResourceTemplateVersion.objects.values_list("pk", "digest"))
    rules = list(TemplateRule.objects.values_list("pk", flat=True))
    with pytest.raises(CatalogError) as refused:
        sync(source)
    assert list(ResourceTemplateVersion.objects.values_list("pk", "digest")) == before
    assert list(TemplateRule.objects.values_list("pk", flat=True)) == rules
    return [(each.line, each.message, each.hint) for each in refused.value.problems]


def rules_of(name: str) -> list[tuple[str, str, str]]:
    return list(
        TemplateRule.objects.filter(template__name=name)
        .order_by("type", "class_name", "resource_id")
        .values_list("type", "class_name", "resource_id")
    )


def test_new_template_becomes_active_with_its_interface(sync: Sync, tmp_path: Path) -> None:
    write(tmp_path, "alpha", ALPHA)
    (result,) = sync()
    assert (result.template, result.version, result.status) == ("alpha", "1.0.0", "created")
    version = ResourceTemplateVersion.objects.get()
    assert version.state == "active"
    assert version.digest == result.digest
    assert version.params_schema == {
        "type": "object",
        "additionalProperties": False,
        "properties": {"size": {"type": "integer", "default": 3}},
    }
    assert version.outputs == [
        {"name": "host", "sensitive": False, "description": "Where it is.", "type": "string"},
        {"name": "password", "sensitive": True, "description": "", "type": "string"},
    ]
    assert version.source == str(tmp_path / "catalog")
    assert rules_of("alpha") == [("cache", "default", "")]
    assert AuditEvent.objects.get().subject == "alpha 1.0.0"


def test_same_content_again_is_unchanged(sync: Sync, tmp_path: Path) -> None:
    folder = write(tmp_path, "alpha", ALPHA)
    (first,) = sync()
    os.utime(folder / "template.yaml", (0, 0))
    (second,) = sync()
    assert (second.status, second.digest) == ("unchanged", first.digest)
    assert ResourceTemplateVersion.objects.count() == 1
    assert AuditEvent.objects.count() == 1


def test_changed_content_under_the_same_version_is_refused(sync: Sync, tmp_path: Path) -> None:
    write(tmp_path, "alpha", ALPHA)
    (result,) = sync()
    write(tmp_path, "alpha", ALPHA, extra="1")
    ((line, message, hint),) = problems(sync)
    assert (line, hint) == (3, "raise the version")
    assert message.startswith(f"alpha 1.0.0 is published with the content {result.digest}, and")
    assert message.count("sha256:") == 2


def test_one_bad_template_refuses_the_whole_sync_with_every_problem(
    sync: Sync, tmp_path: Path
) -> None:
    write(tmp_path, "alpha", ALPHA)
    write(tmp_path, "beta", "name: beta\ntipe: x\ntype: queue\nversion: 1\ndriver: fake\n")
    write(tmp_path, "gamma", "name: gamma\ntype: queue\nversion: 1.0.0\ndriver: fakr\n")
    assert problems(sync) == [
        (2, "tipe is not a key that is known here.", "did you mean type?"),
        (4, "The version must be text.", "put it in quotes"),
        (4, "There is no driver fakr.", "did you mean fake?"),
    ]
    assert not ResourceTemplate.objects.exists()


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("name: a\ntype: qu\nversion: one\ndriver: fake\n", 3, "'one' is not a semantic version."),
        ("type: qu\nversion: 1.0.0\ndriver: fake\n", 1, "name is missing."),
        ("name: a\ntype: qu\nversion: 1.0.0+b\ndriver: fake\n", 3, "has build metadata"),
        ('name: a\ntype: "\\0"\n', 1, "holds a NUL character"),
        ("", 1, "must hold one YAML document, and holds 0."),
        ("name: a\nname: b\n", 2, "name"),
        ("name: [\n", 2, "This is not YAML"),
        (
            HEAD + "params:\n  x: 3\n",
            6,
            "The param x needs a JSON Schema",
        ),
        (
            HEAD + "params:\n  x: {type: strin}\n",
            6,
            "This is no JSON Schema",
        ),
        (
            HEAD + "params:\n  x: {$ref: 'https://example.org/x'}\n",
            6,
            "A $ref may only point into the same schema.",
        ),
        (
            HEAD.replace("fake", "template") + "config: {outputs: {a: '${params.}'}}\n",
            4,
            "The template driver refuses the template",
        ),
        (
            HEAD + "rules:\n- environment: prod\n",
            6,
            "There is no environment prod in acme.",
        ),
    ],
)
def test_bad_template_is_refused_at_its_line(
    sync: Sync, tmp_path: Path, text: str, line: int, message: str
) -> None:
    write(tmp_path, "a", text)
    found = problems(sync)
    assert [place for place, _, _ in found] == [line]
    assert message in found[0][1]


def test_new_version_keeps_the_older_one_and_is_the_newest(sync: Sync, tmp_path: Path) -> None:
    write(tmp_path, "alpha", ALPHA)
    for version in ("1.9.0", "1.10.0"):
        write(tmp_path, "alpha", ALPHA.replace("1.0.0", version))
        sync()
    versions = list(ResourceTemplateVersion.objects.filter(state="active"))
    assert {version.version for version in versions} == {"1.9.0", "1.10.0"}
    found = newest(versions)
    assert found is not None
    assert found.version == "1.10.0"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("type: cache", "type: store", "has the type cache, which cannot become store."),
        ("driver: template", "driver: fake", "has the driver template, which cannot become fake."),
        ("version:", "class: big\nversion:", "has the class default, which cannot become big."),
    ],
)
def test_what_a_template_is_for_never_changes(
    sync: Sync, tmp_path: Path, old: str, new: str, message: str
) -> None:
    write(tmp_path, "alpha", ALPHA)
    sync()
    write(tmp_path, "alpha", ALPHA.replace("1.0.0", "2.0.0").replace(old, new))
    assert problems(sync)[0][1] == f"The template alpha {message}"


def test_rules_follow_the_newest_file(sync: Sync, tmp_path: Path, acme: Organisation) -> None:
    team = Team.objects.create(organisation=acme, name="team")
    Application.objects.create(organisation=acme, team=team, name="shop")
    Environment.objects.create(organisation=acme, name="prod")
    older = ALPHA + "rules:\n- {}\n- {id: main, environment: prod, application: shop}\n"
    write(tmp_path, "alpha", older)
    assert sync()[0].rules.added == 2
    rule = TemplateRule.objects.get(resource_id="main")
    assert (rule.environment, rule.application) == (
        Environment.objects.get(),
        Application.objects.get(),
    )
    newer = ALPHA.replace("1.0.0", "1.1.0") + "rules:\n- {}\n- {type: queue}\n"
    write(tmp_path, "alpha", newer)
    assert (sync()[0].rules.added, sync()[0].rules.removed) == (1, 0)
    assert rules_of("alpha") == [("cache", "default", ""), ("queue", "", "")]
    write(tmp_path, "alpha", older)
    assert (sync()[0].status, rules_of("alpha")[1][0]) == ("unchanged", "queue")


def test_rule_that_another_template_has_is_refused(sync: Sync, tmp_path: Path) -> None:
    write(tmp_path, "alpha", ALPHA)
    sync()
    beta = write(tmp_path, "beta", ALPHA.replace("name: alpha", "name: beta"))
    message = "The template alpha has the same rule already (type cache, class default)."
    assert problems(sync)[0][1] == message
    assert problems(sync, str(beta))[0][1] == message


def test_rule_may_move_between_templates_of_one_sync(sync: Sync, tmp_path: Path) -> None:
    write(tmp_path, "alpha", ALPHA)
    sync()
    write(tmp_path, "alpha", ALPHA.replace("1.0.0", "1.1.0") + "rules: [{id: old}]\n")
    write(tmp_path, "beta", ALPHA.replace("name: alpha", "name: beta"))
    sync()
    assert rules_of("alpha") == [("cache", "default", "old")]
    assert rules_of("beta") == [("cache", "default", "")]


def test_two_templates_of_one_name_are_refused(sync: Sync, tmp_path: Path) -> None:
    write(tmp_path, "a", ALPHA)
    write(tmp_path, "b", ALPHA)
    assert "is called alpha too." in problems(sync)[0][1]


def test_link_out_of_the_folder_is_refused(sync: Sync, tmp_path: Path) -> None:
    folder = write(tmp_path, "alpha", ALPHA)
    (folder / "key").symlink_to("/etc/hostname")
    assert "key" in problems(sync)[0][1]
    assert "is a link to outside of the template's folder." in problems(sync)[0][1]


def test_odd_files_are_refused(sync: Sync, tmp_path: Path) -> None:
    folder = write(tmp_path, "alpha", ALPHA)
    os.mkfifo(folder / "pipe")
    assert "pipe in " in problems(sync)[0][1]
    assert "is neither a file nor a link to one." in problems(sync)[0][1]
    (folder / "pipe").unlink()
    (folder / os.fsdecode(b"caf\xe9")).touch()
    assert "is not printable UTF-8; rename it." in problems(sync)[0][1]


def test_template_yaml_that_is_a_link_is_refused(sync: Sync, tmp_path: Path) -> None:
    folder = write(tmp_path, "alpha", ALPHA)
    (folder / "template.yaml").rename(tmp_path / "elsewhere")
    (folder / "template.yaml").symlink_to(tmp_path / "elsewhere")
    assert "must be a file, and is a link." in problems(sync)[0][1]


def test_too_large_folder_is_refused(sync: Sync, tmp_path: Path) -> None:
    folder = write(tmp_path, "alpha", ALPHA)
    with (folder / "big").open("wb") as file:
        file.truncate(20_000_001)
    assert "is too large: at most 2,000 files with 20,000,000 bytes" in problems(sync)[0][1]


def test_states_and_version_control_are_no_content(sync: Sync, tmp_path: Path) -> None:
    folder = write(tmp_path, "alpha", ALPHA)
    (before,) = sync()
    for name in (".git", ".terraform"):
        (folder / name).mkdir()
        (folder / name / "file").write_text("x")
    (folder / "terraform.tfstate").write_text("{}")
    assert sync()[0].digest == before.digest


def test_source_without_templates_is_refused(sync: Sync, tmp_path: Path) -> None:
    (tmp_path / "catalog").mkdir()
    with pytest.raises(CatalogError, match=r"There is no template\.yaml under "):
        sync()
    with pytest.raises(CatalogError, match="There is no folder nowhere"):
        sync("nowhere")


def test_only_staff_sync(acme: Organisation, alice: User, tmp_path: Path) -> None:
    write(tmp_path, "alpha", ALPHA)
    with pytest.raises(NotAllowedError, match="alice may not change the catalogue"):
        sync_catalog(organisation=acme, source=str(tmp_path), actor=alice)
    assert not ResourceTemplate.objects.exists()


def test_published_content_cannot_change_even_by_sql(sync: Sync, tmp_path: Path) -> None:
    write(tmp_path, "alpha", ALPHA)
    sync()
    with pytest.raises(IntegrityError, match="cannot change any more"), transaction.atomic():
        ResourceTemplateVersion.objects.update(archive=b"")
    with pytest.raises(IntegrityError, match="cannot change any more"), transaction.atomic():
        ResourceTemplateVersion.objects.update(state="draft")


def test_deprecated_version_is_deprecated_once(sync: Sync, tmp_path: Path) -> None:
    write(tmp_path, "alpha", ALPHA)
    sync()
    version = ResourceTemplateVersion.objects.get()
    deprecate_version(version=version, actor=system_user())
    assert ResourceTemplateVersion.objects.get().state == "deprecated"
    with pytest.raises(CatalogError, match="only an active version is deprecated"):
        deprecate_version(version=version, actor=system_user())
    assert AuditEvent.objects.filter(action="template_version.deprecated").count() == 1


def test_content_comes_back_read_only_from_the_database(
    sync: Sync, tmp_path: Path, settings: LazySettings
) -> None:
    settings.VAR_DIR = tmp_path / "var"
    folder = write(tmp_path, "alpha", ALPHA, script="#!/bin/sh\n")
    (folder / "script").chmod(0o700)
    (folder / "inner").mkdir()
    (folder / "inner" / "data").write_bytes(b"\0\1")
    (folder / "link").symlink_to("inner/data")
    sync()
    version = ResourceTemplateVersion.objects.get()
    unpacked = unpack(version)
    assert unpacked == tmp_path / "var" / "templates" / version.digest.removeprefix("sha256:")
    modes = {
        path.relative_to(unpacked).as_posix(): path.stat().st_mode & 0o777
        for path in unpacked.rglob("*")
        if path.is_file()
    }
    assert modes == {
        "inner/data": 0o444,
        "link": 0o444,
        "script": 0o555,
        "template.yaml": 0o444,
    }
    assert (unpacked / "link").read_bytes() == b"\0\1"
    assert unpack(version) == unpacked
    assert [path.name for path in unpacked.parent.iterdir()] == [unpacked.name]


def test_content_is_unpacked_once_by_many_at_once(
    sync: Sync, tmp_path: Path, settings: LazySettings
) -> None:
    settings.VAR_DIR = tmp_path / "var"
    write(tmp_path, "alpha", ALPHA, **{f"file{number}": "x" * 9999 for number in range(50)})
    sync()
    version = ResourceTemplateVersion.objects.get()
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(lambda _: unpack(version), range(16)))
    (folder,) = folders
    assert len(list(folder.iterdir())) == 51
    assert list(folder.parent.iterdir()) == [folder]


def test_damaged_content_is_not_unpacked(
    sync: Sync, tmp_path: Path, settings: LazySettings
) -> None:
    settings.VAR_DIR = tmp_path / "var"
    write(tmp_path, "alpha", ALPHA)
    sync()
    version = ResourceTemplateVersion.objects.get()
    version.archive = bytes(version.archive).replace(b"A cache.", b"B cache.")
    with pytest.raises(DamagedContentError, match="does not fit its digest"):
        unpack(version)
    assert not (tmp_path / "var" / "templates").exists()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a git repository with the tag v1, and one commit more."""
    folder = write(tmp_path, "alpha", ALPHA).parent
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder)
    git(folder, "tag", "v1")
    write(tmp_path, "alpha", ALPHA.replace("1.0.0", "1.1.0"))
    commit(folder)
    return folder


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    done = subprocess.run(
        ["git", *identity, *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def commit(folder: Path) -> None:
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message=Change.")


def test_git_source_is_read_at_its_reference(sync: Sync, repository: Path) -> None:
    address = repository.as_uri()
    (result,) = sync(f"{repository}@v1")
    assert result.version == "1.0.0"
    assert result.source == f"{address}@{git(repository, 'rev-parse', 'v1')}"
    assert sync(f"{repository}@main")[0].version == "1.1.0"
    assert sync(f"{repository}@v1")[0].status == "unchanged"
    assert sync(f"{repository}@main")[0].status == "unchanged"


def test_git_failure_is_a_sentence(sync: Sync, repository: Path) -> None:
    with pytest.raises(CatalogError, match=r"git cannot read file:///.*nothing"):
        sync(f"{repository}@nothing")
    assert not ResourceTemplate.objects.exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("-upload-pack=touch", "neither a path nor"),
        ("ext::sh -c touch", "not ext"),
        ("http://example.org/x.git", "not http"),
        ("git://example.org/x.git", "not git"),
        ("https://me:secret@example.org/x.git", "holds a password"),
        ("file://example.org/x.git", "local path, not file"),
        ("file:///srv/x.git", "local path, not file"),
        ("https://127.0.0.1/x.git", "127.0.0.1, which is in a private network"),
        ("https://localhost:8443/x.git", "which is in a private network"),
        ("git@10.1.2.3:x.git", "10.1.2.3, which is in a private network"),
        ("ssh://git@169.254.169.254/x.git", "which is in a private network"),
        ("https://[::1]/x.git", "::1, which is in a private network"),
        ("https://example.org/x.git@--upload-pack=x", "is not a branch, a tag or a commit"),
        ("https://example.org/x.git@", "is not a branch, a tag or a commit"),
    ],
)
def test_unsafe_source_is_refused(sync: Sync, source: str, message: str) -> None:
    with pytest.raises(CatalogError, match=message) as refused:
        sync(source)
    assert "secret" not in str(refused.value)


def test_a_catalogue_comes_from_the_hosts_that_the_operator_names(
    sync: Sync, settings: LazySettings
) -> None:
    settings.CONDUCTOR_CATALOG_HOSTS = ["git.example.org"]
    with pytest.raises(CatalogError, match=r"from git\.example\.org, not from github\.com"):
        sync("https://github.com/x/y.git")
    assert not ResourceTemplate.objects.exists()


def test_an_https_address_is_held_to_the_checked_one(settings: LazySettings) -> None:
    settings.CONDUCTOR_CATALOG_HOSTS = ["localhost", "127.0.0.1"]
    assert settled_host("https://127.0.0.1/x.git") == "127.0.0.1:443:127.0.0.1"
    assert settled_host("https://127.0.0.1:8443/x.git") == "127.0.0.1:8443:127.0.0.1"
    assert settled_host("ssh://git@127.0.0.1/x.git") == ""


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1", "224.0.0.1", "::1", "fd00::1", "::10.0.0.1", "::ffff:10.0.0.1",
        "64:ff9b::10.0.0.1", "2002:a00:1::1",
    ],
)  # fmt: skip
def test_a_host_with_any_private_address_is_refused(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [(0, 0, 0, "", (each, 0)) for each in ("198.41.0.4", "64:ff9b::198.41.0.4", address)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
    with pytest.raises(CatalogError, match="which is in a private network"):
        settled_host("ssh://git@two.example.org/x.git")


def test_a_host_with_public_addresses_is_held_to_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [(0, 0, 0, "", (each, 0)) for each in ("2002:c629:4::1", "64:ff9b::198.41.0.4")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
    assert settled_host("https://x.example.org/y.git") == "x.example.org:443:[2002:c629:4::1]"


@pytest.mark.parametrize(
    ("source", "url", "ref"),
    [
        ("https://me@example.org/a/b.git", "https://me@example.org/a/b.git", "HEAD"),
        ("https://me@example.org/a/b.git@v1/x", "https://me@example.org/a/b.git", "v1/x"),
        ("git@example.org:a/b.git", "git@example.org:a/b.git", "HEAD"),
        ("git@example.org:a/b.git@v1", "git@example.org:a/b.git", "v1"),
        ("ssh://git@example.org:22/a.git@main", "ssh://git@example.org:22/a.git", "main"),
    ],
)
def test_address_and_reference_are_told_apart(source: str, url: str, ref: str) -> None:
    assert _repository(source) == (url, ref)


MERGED = """\
params:
  tier: {type: string}
  databases: {type: array}
merge:
  tier: {rule: maximum, order: [Standard, Premium]}
  databases: {rule: union, key: name, limit: 500, fields: {throughput: maximum}}
shrink: propose
"""


def test_merge_rules_are_stored_as_objects(sync: Sync, tmp_path: Path) -> None:
    write(tmp_path, "a", HEAD + MERGED)

    sync()

    version = ResourceTemplateVersion.objects.get()
    assert version.merge_rules == {
        "tier": {"rule": "maximum", "order": ["Standard", "Premium"]},
        "databases": {
            "rule": "union",
            "key": "name",
            "limit": 500,
            "fields": {"throughput": {"rule": "maximum"}},
        },
    }
    assert version.shrink == "propose"


@pytest.mark.parametrize(
    ("merge", "expected"),
    [
        ("merge: {size: largest}", (6, "'largest' is not one of equal, union, maximum, minimum, intersection, priority.")),
        ("merge: {size: {rule: union, by: name}}", (6, "by is not a key that is known here.")),
        ("merge: {size: {limit: 3}}", (6, "rule is missing.")),
        ("merge: {size: {rule: maximum, order: [1]}}", (6, "merge.size.order: [1] is too short.")),
        ("merge: {size: {rule: union, order: [1, 2]}}", (6, "The rule union takes no order.")),
        ("merge: {size: {rule: priority, limit: 2}}", (6, "The rule priority takes no limit.")),
        ("merge: {size: {rule: maximum, key: a}}", (6, "The rule maximum takes no key.")),
        (
            "merge: {size: {rule: maximum, order: [1, 2], limit: 2}}",
            (6, "A maximum with an order takes no limit."),
        ),
        ("merge: {siez: maximum}", (6, "The template has no param siez to merge.")),
        ("shrink: never", (6, "shrink: never has no effect without merge rules.")),
    ],
)  # fmt: skip
def test_wrong_merge_rules_are_refused_with_their_line(
    sync: Sync, tmp_path: Path, merge: str, expected: tuple[int, str]
) -> None:
    whole = "params: {type: object, additionalProperties: false, properties: {size: {}}}\n"
    write(tmp_path, "a", HEAD + whole + merge + "\n")

    assert [found[:2] for found in problems(sync)] == [expected]


def test_the_rule_to_share_by_is_stored(sync: Sync, tmp_path: Path) -> None:
    write(tmp_path, "a", HEAD + "share_when: consumer.team == resource.team\n")
    sync()

    assert ResourceTemplateVersion.objects.get().share_when == "consumer.team == resource.team"


def test_a_wrong_rule_to_share_by_is_refused_with_its_line(sync: Sync, tmp_path: Path) -> None:
    write(tmp_path, "a", HEAD + "share_when: consumer.name == resource.name\n")

    ((line, message),) = [found[:2] for found in problems(sync)]
    assert line == 5
    assert message.startswith("There is no fact `consumer.name`. There are consumer.application")
    assert not ResourceTemplateVersion.objects.exists()


@pytest.mark.parametrize(
    ("written", "seconds"), [("45", 45), ("30m", 1800), ('"1h30m"', 5400), (None, None)]
)
def test_how_long_a_driver_may_take_is_stored(
    sync: Sync, tmp_path: Path, written: str | None, seconds: int | None
) -> None:
    write(tmp_path, "alpha", ALPHA + (f"timeout: {written}\n" if written else ""))
    sync()
    assert ResourceTemplateVersion.objects.get().timeout_seconds == seconds


@pytest.mark.parametrize("written", ["soon", "0", "-5", "31d", '""', "100000h"])
def test_what_is_no_length_of_time_is_refused_with_its_line(
    sync: Sync, tmp_path: Path, written: str
) -> None:
    write(tmp_path, "alpha", ALPHA + f"timeout: {written}\n")
    ((line, message, _),) = problems(sync)
    assert line == ALPHA.count("\n") + 1
    assert "is no length of time: write seconds, or hours, minutes and seconds" in message
