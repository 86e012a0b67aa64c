from __future__ import annotations

import re
from pathlib import Path

import pytest

from provisioning.score.document import parse
from tests.portal.test_score_command import run

TEXT = (Path(__file__).parents[2] / "docs" / "score.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
FILES = dict(
    zip(["shop.yaml", "wrong.yaml"], [b for kind, b in BLOCKS if kind == "yaml"], strict=False)
)
OUTPUTS = next(block for kind, block in BLOCKS if kind == "json")
RUNS = [block.split("\n", 1) for kind, block in BLOCKS if kind == "console"]


@pytest.mark.parametrize(("command", "output"), RUNS)
def test_every_command_in_the_documentation_prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, output: str
) -> None:
    for name, text in [*FILES.items(), ("outputs.json", OUTPUTS)]:
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)

    _, stdout, stderr = run(*command.removeprefix("$ manage.py score ").split())

    assert stdout + stderr == output


def test_the_annotations_in_the_documentation_are_valid() -> None:
    example = [block for kind, block in BLOCKS if kind == "yaml"][2]
    whole = (
        "apiVersion: score.dev/v1b1\nmetadata: {name: shop}\ncontainers: {main: {image: x}}\n"
        + example
    )

    [workload], problems = parse(whole)

    assert problems == []
    assert workload.resources["db"].binding.name == "orders"
    assert workload.resources["db"].depends_on == ("net",)
