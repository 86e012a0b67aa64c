from __future__ import annotations

import subprocess
import sys

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core import signing

pytest_plugins = ["pytester"]

SKIPS_ITSELF = """
    import pytest

    @pytest.mark.terraform
    def test_needs_terraform():
        pytest.skip("on a whim")
"""


@pytest.fixture
def suite(
    pytester: pytest.Pytester,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> pytest.Pytester:
    """Return an empty test suite with the markers and hooks of this one."""
    own = request.config.rootpath / "tests" / "conftest.py"
    monkeypatch.setenv("PYTHONPATH", str(request.config.rootpath))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makeconftest(own.read_text())
    pytester.makeini(
        "[pytest]\nmarkers = terraform\n browser\nDJANGO_SETTINGS_MODULE = conductor.settings"
    )
    return pytester


def test_whim_fails_where_the_tool_is_installed(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONDUCTOR_TERRAFORM", "true")
    suite.makepyfile(SKIPS_ITSELF)
    result = suite.runpytest_subprocess("-p", "no:randomly")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*Skipped although its tool is installed*on a whim*"])


def test_missing_tool_skips_with_its_reason(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONDUCTOR_TERRAFORM", "no-such-tool")
    suite.makepyfile(SKIPS_ITSELF)
    result = suite.runpytest_subprocess("-p", "no:randomly", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*no terraform or tofu on PATH*"])


def test_child_process_works_on_the_database_of_the_test(
    alice: User, child_environment: dict[str, str]
) -> None:
    script = (
        "from django.contrib.auth.models import User\n"
        "from django.core import signing\n"
        "print([user.username for user in User.objects.all()], signing.dumps('x', compress=True))"
    )
    child = subprocess.run(
        [sys.executable, "manage.py", "shell", "--no-imports", "-c", script],
        cwd=settings.BASE_DIR, env=child_environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    names, _, signed = child.stdout.strip().rpartition(" ")
    assert names == "['alice']"
    assert signing.loads(signed) == "x"
