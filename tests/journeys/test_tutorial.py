from __future__ import annotations

import re
import subprocess
import sys

import pytest
from django.conf import settings

from provisioning.models import Deployment, Resource, ResourceState

TUTORIAL = settings.BASE_DIR / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PREPARED = "make migrate"
"""The test has its own prepared database."""
STOP_WORKER = "trap 'kill $(jobs -p) 2> /dev/null; wait' EXIT"


def blocks() -> list[str]:
    return BLOCK.findall(TUTORIAL.read_text("utf-8"))


def commands() -> list[str]:
    lines = [line for block in blocks() for line in block.splitlines()]
    return [line[2:] for line in lines if line.startswith("$ ") and line[2:] != PREPARED]


def promised() -> list[str]:
    return [line for block in blocks() for line in block.splitlines() if line[:2] != "$ "]


@pytest.mark.django_db(transaction=True)
def test_the_tutorial_does_what_it_says(child_environment: dict[str, str]) -> None:
    lines = ["set -e", "shopt -s expand_aliases", STOP_WORKER, *commands()]
    script = "\n".join(lines).replace(".venv/bin/python", sys.executable)

    ran = subprocess.run(
        ["/bin/bash", "-c", script],
        cwd=settings.BASE_DIR,
        env=child_environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    said = ran.stdout.splitlines()
    assert [line for line in promised() if line not in said] == []
    assert "Did you mean" in ran.stderr or "did you mean" in ran.stderr
    assert set(Resource.objects.values_list("state", flat=True)) == {ResourceState.DELETED}
    assert Deployment.objects.count() == 5
