"""Which member of a pool an alias claims.

An alias keeps the member that it has claimed. Otherwise it takes the oldest that is ready; if none
is, one more is made for it, unless the pool has as many members as it may have.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from provisioning.planning.criteria import json_text
from provisioning.planning.facts import PoolFacts, ResourceFacts, Snapshot
from provisioning.score.workload import Problem, ResourceDeclaration, Workload, join_path


def claimed_keys(
    workloads: Iterable[Workload], snapshot: Snapshot, problems: list[Problem]
) -> dict[tuple[str, str], str]:
    """Return the member's key for each (workload, alias) that names a pool.

    What cannot be claimed is left out and told in `problems`.
    """
    return _Claims(workloads, snapshot, problems).keys


class _Claims:
    """Give every claiming alias its member: first to those that have one, then to the others."""

    def __init__(
        self, workloads: Iterable[Workload], snapshot: Snapshot, problems: list[Problem]
    ) -> None:
        self._snapshot = snapshot
        self._problems = problems
        self._made: Counter[str] = Counter()
        self.keys: dict[tuple[str, str], str] = {}
        claiming = {
            (workload.name, alias): (workload, declaration)
            for workload in workloads
            for alias, declaration in workload.resources.items()
            if declaration.binding.pool
        }
        bound = {
            (each.workload, each.alias): each.key
            for each in snapshot.consumers
            if each.application == snapshot.application and each.mode == "pool"
        }
        for place in sorted(claiming):
            present = snapshot.resources.get(bound.get(place, ""))
            pool = claiming[place][1].binding.pool
            if present is not None and present.pool == pool and not present.deleting:
                self.keys[place] = present.key
        for place in sorted(claiming):
            self._bind(*claiming[place])

    def _bind(self, workload: Workload, declaration: ResourceDeclaration) -> None:
        alias, name = declaration.alias, declaration.binding.pool
        place = (workload.name, alias)
        pool = self._snapshot.pools.get(name)
        refusal: tuple[str, str] | None = None
        if pool is None:
            close = difflib.get_close_matches(name, sorted(self._snapshot.pools), n=1)
            hint = f"did you mean `{close[0]}`?" if close else "see manage.py pool list"
            environment = self._snapshot.environment
            refusal = f"There is no pool {name} in the environment {environment}.", hint
        else:
            present = self._snapshot.resources.get(self.keys.get(place, ""))
            refusal = self._refusal(pool, declaration, present)
            if refusal is None and present is None:
                refusal = self._claim(pool, place)
        if refusal is not None:
            self.keys.pop(place, None)
            path = join_path(("resources", alias))
            self._problems.append(workload.problem(path, refusal[0], hint=refusal[1]))

    def _refusal(
        self, pool: PoolFacts, declaration: ResourceDeclaration, present: ResourceFacts | None
    ) -> tuple[str, str] | None:
        """Say why this declaration can have no member of the pool, and what to do about it."""
        alias = declaration.alias
        wanted = f"{declaration.type}.{declaration.class_}"
        made = f"{pool.type}.{pool.class_}"
        if declaration.binding.mode == "application":
            message = (
                f"`{alias}` has an id and asks for a member of the pool {pool.name}: a member "
            )
            return f"{message}of a pool is of one alias alone.", "leave `id` or `pool` out"
        if wanted != made:
            message = f"`{alias}` asks for {wanted}, but the members of the pool {pool.name} are "
            return f"{message}{made}.", "ask for the same type and class, or for another pool"
        own = pool.owner_team == self._snapshot.team
        if present is None and pool.closed and not own:
            message = f"The pool {pool.name} is closed to other teams than {pool.owner_team}."
            return message, f"ask the team {pool.owner_team} to open it, or leave `pool` out"
        params = present.params if present else pool.params
        if differing := _differing(declaration.params, params):
            listed = ", ".join(f"`{param}`" for param in differing)
            message = f"`{alias}` asks for other params than the members of the pool {pool.name} "
            return (
                f"{message}have: {listed}.",
                "leave the params out: those of the pool stand",
            )
        return None

    def _claim(self, pool: PoolFacts, place: tuple[str, str]) -> tuple[str, str] | None:
        """Take the oldest ready member, or make one more; return a refusal if neither can be."""
        taken = set(self.keys.values())
        ready = next((key for key in pool.ready if key not in taken), None)
        if ready is not None:
            self.keys[place] = ready
            return None
        if pool.members + self._made[pool.name] >= pool.max_size:
            message = (
                f"The pool {pool.name} has no member ready, and has {pool.members} of at most "
            )
            hint = f"wait until one is ready, or ask the team {pool.owner_team} to resize it"
            return f"{message}{pool.max_size} members.", hint
        self._made[pool.name] += 1
        self.keys[place] = self._new_key(pool, place)
        return None

    def _new_key(self, pool: PoolFacts, place: tuple[str, str]) -> str:
        """Return a key that no live resource has: a returned member is never used again."""
        beginning = "/".join(("pool", pool.name, self._snapshot.application, *place))
        number = 1
        while f"{beginning}/{number}" in self._snapshot.resources:
            number += 1
        return f"{beginning}/{number}"


def _differing(asked: Mapping[str, Any] | None, params: Mapping[str, Any]) -> Sequence[str]:
    """Name the params that are asked for and are not what the members have."""
    return sorted(
        name
        for name, value in (asked or {}).items()
        if name not in params or json_text(value) != json_text(params[name])
    )
