from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path
from urllib.parse import urlsplit

import hypothesis
import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from pytest_django import DjangoDbBlocker

from provisioning.workers.lease import Lease

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_browser() -> str | None:
    """Return the path of an installed Chromium."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def find_terraform() -> str | None:
    """Return the path of the terraform or tofu that Conductor is set to use."""
    return shutil.which(settings.CONDUCTOR_TERRAFORM.split(",")[0])


def find_mount() -> str | None:
    """Return the path of the program that mounts file systems, if it may."""
    if os.geteuid() or subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        return None
    return shutil.which("mount")


TOOLS: dict[str, tuple[Callable[[], str | None], str]] = {
    "terraform": (find_terraform, "no terraform or tofu on PATH (CONDUCTOR_TERRAFORM)"),
    "browser": (find_browser, "no Chromium on PATH"),
    "mounts": (find_mount, "no right to mount file systems"),
}


def pytest_configure() -> None:
    # Most modules under test note what they do in a file outside of their work folder.
    os.environ.setdefault("CONDUCTOR_SANDBOX", "none")
    # Slow hashing protects real passwords; here it would only take a second per test.
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    # How long an example takes depends on what else the machine does.
    hypothesis.settings.register_profile("conductor", deadline=None)
    hypothesis.settings.load_profile("conductor")


def missing_tool(item: pytest.Item) -> str | None:
    """Return why a test cannot run on this machine, or None if it has all the test's tools."""
    for marker, (find, reason) in TOOLS.items():
        if item.get_closest_marker(marker) and find() is None:
            return reason
    return None


def commits(item: pytest.Item) -> bool:
    """Tell whether others see what a test writes, which is then removed rather than rolled back."""
    marker = item.get_closest_marker("django_db")
    if marker is not None and marker.kwargs.get("transaction", False):
        return True
    return bool({"transactional_db", "live_server"} & {*getattr(item, "fixturenames", ())})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        reason = missing_tool(item)
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))
    # Tests that commit come last, for they remove what migrations have stored; the longest of them
    # come first, lest one process has to wait for another that has just begun with one.
    items.sort(key=lambda item: (commits(item), "journeys" not in item.path.parts))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that skips itself although the tool which it is marked with is there."""
    report = yield
    needs_tool = any(item.get_closest_marker(marker) for marker in TOOLS)
    if report.skipped and not hasattr(report, "wasxfail") and needs_tool and not missing_tool(item):
        report.outcome = "failed"
        report.longrepr = f"Skipped although its tool is installed: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> None:
    """Let nobody who uses the tests' database wait for the disk."""
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        name = connection.ops.quote_name(connection.settings_dict["NAME"])
        cursor.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
        connection.close()  # it holds for those who connect from now on


@pytest.fixture(autouse=True)
def unasked_leases(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no lease look for a step that only the test's own transaction sees."""
    if not commits(request.node):
        monkeypatch.setattr(Lease, "_look", lambda lease: None)


@pytest.fixture
def alice(db: None) -> User:
    """Return a developer who asks for resources."""
    return User.objects.create_user("alice", "alice@example.org", "alice")


@pytest.fixture
def bob(db: None) -> User:
    """Return a developer of another team."""
    return User.objects.create_user("bob", "bob@example.org", "bob")


@pytest.fixture
def charlie(db: None) -> User:
    """Return the person whom others have to ask."""
    return User.objects.create_user("charlie", "charlie@example.org", "charlie")


@pytest.fixture
def child_environment(transactional_db: None, tmp_path: Path) -> dict[str, str]:
    """Return the environment with which a child process works on this test's database."""
    server = settings.EMBEDDED_SERVER
    url = urlsplit(server.ensure().url() if server else os.environ["DATABASE_URL"])
    return os.environ | {
        "DATABASE_URL": url._replace(path=f"/{connection.settings_dict['NAME']}").geturl(),
        "SECRET_KEY": str(settings.SECRET_KEY),
        "CONDUCTOR_ENCRYPTION_KEYS": ",".join(settings.ENCRYPTION_KEYS),
        "CONDUCTOR_POSTGRES_ADMIN_URL": settings.CONDUCTOR_POSTGRES_ADMIN_URL(),
        "CONDUCTOR_HTTPS": "false",
        "CONDUCTOR_VAR_DIR": str(tmp_path / "var"),
    }
