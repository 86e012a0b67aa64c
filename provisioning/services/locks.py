"""The advisory locks under which decisions are made, taken before any row lock.

The order is: platform, organisations by id, environment, Deployment, Resource by id, Step by id,
Consumer. A claim locks one Step only, then the limits of its environment and of its template; the end
of a step locks its Resource, then Steps. Whoever keeps to it cannot deadlock. Row locks are `no_key`, so that rows which merely refer to a locked one can be
inserted.

Whoever decides in one environment alone shares its organisation with others who do. A decision that
may concern other environments has the organisations of all of them to itself, and with that the
right to decide in each of their environments.
"""

from __future__ import annotations

import hashlib

from django.db import connection, transaction

from provisioning.models import (
    Deployment,
    DeploymentStatus,
    Environment,
    Resource,
    ResourceTemplate,
    Scope,
)
from provisioning.models.resources import LIVE_RESOURCE_STATES
from provisioning.score.workload import widest
from provisioning.snapshot.reach import crossings

PLATFORM = 0
"""Stands for what is published across organisations, beside the ids of these."""


def lock_environment(environment: Environment, scope: str = Scope.ENVIRONMENT) -> None:
    """Hold the right to decide in an environment until the current transaction ends.

    `scope` says how far the decision looks for resources. What is linked with the environment, and
    what the deployments that wait there look for, is held in any case.
    """
    alone: frozenset[int] = frozenset()
    while True:
        savepoint = transaction.savepoint()
        _lock(environment, alone)
        needed = _needed_alone(environment, scope)
        if needed <= alone:
            transaction.savepoint_commit(savepoint)
            return
        # This lets the locks go: two that made theirs larger while they hold them could deadlock.
        transaction.savepoint_rollback(savepoint)
        alone |= needed


def _needed_alone(environment: Environment, scope: str) -> frozenset[int]:
    """Return the organisations that a decision needs to itself, none if it stays where it is."""
    waiting = Deployment.objects.filter(environment=environment, status=DeploymentStatus.WAITING)
    scope = widest((scope, *waiting.values_list("scope", flat=True)))
    pairs = crossings()
    linked = any(environment.pk in (each.user, each.owner) for each in pairs)
    if scope == Scope.ENVIRONMENT and not linked:
        return frozenset()
    needed = {environment.organisation_id}
    if scope == Scope.GLOBAL:
        published = Resource.objects.filter(published=True, state__in=LIVE_RESOURCE_STATES)
        needed |= {PLATFORM, *published.values_list("environment__organisation", flat=True)}
    neighbours = {each.organisations for each in pairs}
    while more := {each for both in neighbours if needed & {*both} for each in both} - needed:
        needed |= more
    return frozenset(needed)


def _lock(environment: Environment, alone: frozenset[int]) -> None:
    with connection.cursor() as cursor:
        if environment.organisation_id not in alone:
            number = _number("organisation", environment.organisation_id)
            cursor.execute("SELECT pg_advisory_xact_lock_shared(%s)", [number])
        for each in sorted(alone):
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_number("organisation", each)])
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_number("environment", environment.pk)])


def lock_limit(limited: Environment | ResourceTemplate) -> None:
    """Hold the right to count what runs in an environment, or of a template, likewise."""
    kind = f"limit of {limited._meta.model_name}"
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_number(kind, limited.pk)])


def _number(kind: str, id_: int) -> int:
    """Return a 64-bit number that is the same in every process."""
    digest = hashlib.sha256(f"conductor {kind} {id_}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
