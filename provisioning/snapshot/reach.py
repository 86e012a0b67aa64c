"""How far a decision in one environment reaches: what it may meet in others, and whose they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection

from provisioning.models import Environment

Searched = Mapping[tuple[str, str], str]
"""For each type and class the widest scope, beyond the environment, in which one is looked for."""


class Crossing(NamedTuple):
    """Two environments, with their organisations, of which one uses something of the other."""

    user: int
    organisation_of_user: int
    owner: int
    organisation_of_owner: int

    @property
    def organisations(self) -> tuple[int, int]:
        """Return both organisations, which may be the same."""
        return self.organisation_of_user, self.organisation_of_owner


def crossings() -> set[Crossing]:
    """Return all pairs of environments between which a consumer or a dependency crosses."""
    with connection.cursor() as cursor:
        cursor.execute(_CROSSINGS_SQL)
        return {Crossing(*row) for row in cursor.fetchall()}


def is_linked(environment: Environment) -> bool:
    """Tell whether anything crosses the border of an environment."""
    return any(environment.pk in (each.user, each.owner) for each in crossings())


def resources_elsewhere(environment: Environment, searched: Searched) -> frozenset[UUID]:
    """Find the live resources of other environments that a decision in this one may meet.

    These are those that its workloads use and those that match what is `searched`, with all that
    they need and all that takes outputs from them or from its own.
    """
    values: dict[str, Any] = {
        "here": environment.pk,
        "organisation": environment.organisation_id,
        **_columns("wide", searched),
        **_columns("global", (each for each in searched if searched[each] == "global")),
    }
    with connection.cursor() as cursor:
        cursor.execute(_ELSEWHERE_SQL, values)
        return frozenset(row[0] for row in cursor.fetchall())


def _columns(name: str, pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    listed = list(pairs)
    return {
        f"{name}_types": [type_ for type_, _ in listed],
        f"{name}_classes": [class_ for _, class_ in listed],
    }


_CROSSINGS_SQL = """
SELECT usage.user_id, ours.organisation_id, usage.owner_id, theirs.organisation_id
FROM (
    SELECT workload.environment_id AS user_id, resource.environment_id AS owner_id
    FROM provisioning_resourceconsumer consumer
    JOIN provisioning_workload workload ON workload.id = consumer.workload_id
    JOIN provisioning_resource resource ON resource.id = consumer.resource_id
    WHERE consumer.crosses AND consumer.state = 'active'
  UNION
    SELECT source.environment_id, target.environment_id
    FROM provisioning_resourcedependency dependency
    JOIN provisioning_resource source ON source.id = dependency.source_id
    JOIN provisioning_resource target ON target.id = dependency.target_id
    WHERE dependency.crosses
) usage
JOIN provisioning_environment ours ON ours.id = usage.user_id
JOIN provisioning_environment theirs ON theirs.id = usage.owner_id
"""
_ELSEWHERE_SQL = """
WITH RECURSIVE
met AS (
    SELECT consumer.resource_id AS id
    FROM provisioning_resourceconsumer consumer
    JOIN provisioning_workload workload ON workload.id = consumer.workload_id
    WHERE consumer.crosses AND consumer.state = 'active'
      AND workload.environment_id = %(here)s
  UNION
    SELECT resource.id
    FROM provisioning_resource resource
    JOIN provisioning_environment environment ON environment.id = resource.environment_id
    WHERE resource.state <> 'deleted' AND resource.match_slot <> '' AND environment.id <> %(here)s
      AND (
        (environment.organisation_id = %(organisation)s
         AND (resource.type, resource.class_name) IN (
             SELECT * FROM unnest(%(wide_types)s::text[], %(wide_classes)s::text[])))
        OR (resource.published
            AND (resource.type, resource.class_name) IN (
                SELECT * FROM unnest(%(global_types)s::text[], %(global_classes)s::text[])))
      )
),
begun AS (
    SELECT id FROM met
  UNION  -- what was provisioned beside a matched resource need not depend on it
    SELECT beside.id
    FROM met
    JOIN provisioning_resource matched ON matched.id = met.id AND matched.match_slot <> ''
    JOIN provisioning_resource beside
      ON beside.environment_id = matched.environment_id
     AND beside.state <> 'deleted'
     AND beside.key LIKE 'with/slot/%%'
     AND split_part(beside.key, '/', 3) = matched.match_slot
     AND split_part(beside.key, '/', 4) = matched.slot_ordinal::text
),
needed(id) AS (
    (SELECT id FROM begun
     UNION
     SELECT dependency.target_id
     FROM provisioning_resourcedependency dependency
     JOIN provisioning_resource source ON source.id = dependency.source_id
     WHERE dependency.crosses AND source.environment_id = %(here)s)
  UNION
    SELECT dependency.target_id
    FROM needed
    JOIN provisioning_resource source
      ON source.id = needed.id AND source.environment_id <> %(here)s
    JOIN provisioning_resourcedependency dependency ON dependency.source_id = source.id
),
takers(id) AS (
    (SELECT id FROM begun
     UNION
     SELECT dependency.source_id
     FROM provisioning_resourcedependency dependency
     JOIN provisioning_resource target ON target.id = dependency.target_id
     WHERE dependency.crosses AND dependency.kind = 'output'
       AND target.environment_id = %(here)s)
  UNION
    SELECT dependency.source_id
    FROM takers
    JOIN provisioning_resource target
      ON target.id = takers.id AND target.environment_id <> %(here)s
    JOIN provisioning_resourcedependency dependency
      ON dependency.target_id = target.id AND dependency.kind = 'output'
)
SELECT resource.id
FROM provisioning_resource resource
WHERE resource.environment_id <> %(here)s AND resource.state <> 'deleted'
  AND resource.id IN (SELECT id FROM needed UNION SELECT id FROM takers)
"""
