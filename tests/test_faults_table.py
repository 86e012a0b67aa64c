from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
PROOF = re.compile(r"`([\w/]+\.py)::(\w+)`")


def test_every_proof_that_the_table_of_faults_names_is_there() -> None:
    named = PROOF.findall((TESTS.parent / "docs" / "faults.md").read_text())
    missing = [
        f"{path}::{name}"
        for path, name in named
        if f"def {name}(" not in (TESTS / re.sub("^P/", "provisioning/", path)).read_text()
    ]
    assert len(named) > 50
    assert missing == []
