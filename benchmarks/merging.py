"""How long it takes to make one input of what many consumers ask for, and to plan with it."""

from __future__ import annotations

import time
from statistics import median
from typing import Any, NamedTuple

from provisioning.planning.merging import Claims, Wish, claims_of, combine, rules_of, settle, unmet

CONSUMERS = 500
ROUNDS = 20
RULES: dict[str, Any] = {
    "tier": {"rule": "maximum", "order": ["Standard", "Premium"]},
    "databases": {"rule": "union", "key": "name", "limit": 500},
    "env": {"rule": "union", "limit": 2_000},
    "replicas": "maximum",
    "network": "intersection",
    "runtime": "priority",
    "size": "equal",
}


class Merged(NamedTuple):
    """Milliseconds for one merge: the median and the slowest of all rounds."""

    consumers: int
    median: float
    slowest: float


def measure(consumers: int = CONSUMERS) -> Merged:
    """Merge the wishes of that many consumers, from the wishes to who is not met."""
    wishes = [_wish(number) for number in range(consumers)]
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        rules = rules_of(RULES)
        claims: Claims = combine(map(claims_of, wishes))
        settled = settle(claims, rules)
        left = list(unmet(claims, rules, settled.params))
        times.append((time.perf_counter() - began) * 1_000)
        if len(settled.params["databases"]) != min(consumers, 100) or not left:
            raise AssertionError("the merge lost a wish")
    return Merged(consumers, median(times), max(times))


def _wish(number: int) -> Wish:
    """Ask as consumer `number` for a database of 100, a variable of its own and what all may share."""
    return Wish(
        application=f"application-{number // 5}",
        workload=f"workload-{number % 5}",
        alias="db",
        params={
            "tier": "Premium" if number % 7 == 0 else "Standard",
            "databases": [
                {
                    "name": f"database-{number % 100}",
                    "containers": [{"name": f"container-{number}", "partitionKey": "/id"}],
                }
            ],
            "env": {f"ENDPOINT_{number}": f"${{resources.app/shop/queue-{number}.host}}"},
            "replicas": number % 9,
            "network": ["internal", f"network-{number % 3}"],
            "runtime": str(18 + number % 3),
            "size": 3,
        },
        priority=number,
    )
