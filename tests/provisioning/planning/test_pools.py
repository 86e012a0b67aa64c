"""What the members of a pool are like, decided from plain facts."""

from __future__ import annotations

import re

from provisioning.planning.decide import decide
from provisioning.planning.facts import PoolFacts, Snapshot
from provisioning.planning.plan import Plan
from provisioning.planning.pools import decide_fill
from tests.provisioning.planning.facts import make_snapshot, make_version, score, workloads

VERSION = make_version(
    "database",
    params={"size": {}, "network": {}, "tags": {}},
    naming={"prefix": "az", "length": 24, "alphabet": "alphanumeric"},
)
POOL = PoolFacts(
    "warm", "database", "default", VERSION, {"size": 1, "tags": {"cost": "7"}}, "platform", 9
)
HERE = make_snapshot(
    VERSION,
    pools={"warm": POOL},
    defaults={
        "*": {"network": "isolated", "tags": {"cost": "1", "by": "us"}, "unknown": 1},
        "database": {"size": 9},
    },
)


def filled(snapshot: Snapshot = HERE) -> Plan:
    return decide_fill("warm", ["pool/warm/1"], snapshot)


def test_environments_defaults_complete_the_params_of_a_new_member() -> None:
    (member,) = filled().resources

    assert member.params == {
        "size": 1,
        "network": "isolated",
        "tags": {"cost": "7", "by": "us"},
    }
    assert member.decided_by == {"network": ("environment dev",), "tags": ("environment dev",)}


def test_one_made_on_demand_is_like_those_that_are_kept_ready() -> None:
    claim = score("web", "db: {type: database, pool: warm}")
    (made,) = decide(workloads(claim), HERE).resources

    assert made.params == filled().resources[0].params


def test_a_member_has_a_name_by_its_templates_rule() -> None:
    (member,) = filled().resources

    assert re.fullmatch("azdatabasewarm1d[0-9a-f]{8}", member.name)
