"""Claims of pool members, decided from plain facts."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from provisioning.planning.claims import claimed_keys
from provisioning.planning.facts import ConsumerFacts, PoolFacts, ResourceFacts, Snapshot
from provisioning.score.document import parse_application
from provisioning.score.workload import Problem, Workload
from tests.provisioning.planning.facts import make_version

POOL = PoolFacts("warm", "database", "default", make_version("database"), {}, "platform", 9)


def workloads(*aliases: str) -> list[Workload]:
    """Return one workload whose aliases claim, in the given order of keys."""
    lines = "".join(f"  {alias}: {{type: database, pool: warm}}\n" for alias in aliases)
    text = (
        "apiVersion: score.dev/v1b1\nmetadata: {name: web}\n"
        f"containers: {{main: {{image: busybox}}}}\nresources:\n{lines}"
    )
    return list(parse_application([("score.yaml", text)]))


def snapshot(pool: PoolFacts, *consumers: ConsumerFacts) -> Snapshot:
    members = {
        each.key: ResourceFacts(
            id=each.key,
            key=each.key,
            name=each.key,
            uid="database.default#warm-1",
            type="database",
            class_="default",
            version=POOL.version,
            params={},
            context={},
            spec_digest="1",
            owner_team="shop",
            created_by="",
            clean=True,
            pool="warm",
            claimed=True,
        )
        for each in consumers
    }
    return Snapshot(
        organisation="acme",
        application="shop",
        team="shop",
        environment="dev",
        environment_kind="development",
        resources=members,
        consumers=consumers,
        pools={"warm": pool},
    )


def claim(pool: PoolFacts, *aliases: str, bound: dict[str, str] | None = None) -> dict[str, str]:
    """Return the key for each alias; what is refused is left out."""
    consumers = [
        ConsumerFacts("shop", "web", alias, key, "pool") for alias, key in (bound or {}).items()
    ]
    problems: list[Problem] = []
    keys = claimed_keys(workloads(*aliases), snapshot(pool, *consumers), problems)
    assert len(problems) == len(aliases) - len(keys)
    return {alias: key for (_, alias), key in keys.items()}


def test_the_order_of_the_keys_does_not_matter() -> None:
    pool = replace(POOL, ready=("pool/warm/1", "pool/warm/2"))

    found = {
        json.dumps(claim(pool, *order), sort_keys=True)
        for order in itertools.permutations(("aa", "bb", "cc"))
    }

    assert found == {'{"aa": "pool/warm/1", "bb": "pool/warm/2", "cc": "pool/warm/shop/web/cc/1"}'}


def test_what_is_claimed_already_is_kept_before_others_claim() -> None:
    pool = replace(POOL, ready=("pool/warm/1",))

    keys = claim(pool, "aa", "bb", bound={"bb": "pool/warm/7"})

    assert keys == {"aa": "pool/warm/1", "bb": "pool/warm/7"}


@given(
    ready=st.integers(0, 5),
    claimed=st.integers(0, 5),
    room=st.integers(0, 5),
    asked=st.integers(1, 6),
)
def test_no_member_has_two_claims_and_the_most_is_kept(
    ready: int, claimed: int, room: int, asked: int
) -> None:
    members = ready + claimed
    pool = replace(
        POOL,
        ready=tuple(f"pool/warm/{number}" for number in range(ready)),
        members=members,
        max_size=members + room,
    )

    keys = claim(pool, *(f"alias-{number}" for number in range(asked)))

    assert len(set(keys.values())) == len(keys) == min(asked, ready + room)
    made = set(keys.values()) - set(pool.ready)
    assert members + len(made) <= pool.max_size
