"""What needs somebody: the thresholds, as sentences about this moment and as Prometheus rules.

The rule file `docs/prometheus-rules.yaml` is `rule_file()`, and a test holds it to that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import yaml

from provisioning.models import DeploymentStatus
from provisioning.services.figures.now import Now

FAILURE_SHARE = 0.10
"""Of the deployments that ended within an hour, the share that failed or timed out."""
LONGEST_SECONDS = 30 * 60
BACKLOG = 50
"""Steps in one queue that wait for a worker."""

_FAILURES = (DeploymentStatus.FAILED, DeploymentStatus.TIMED_OUT)


@dataclass(frozen=True, slots=True)
class Reading:
    """Hold whether a rule fires, and its figures in a sentence."""

    firing: bool
    text: str


@dataclass(frozen=True, slots=True)
class Rule:
    """Hold one thing that needs somebody: how it is read here, and how Prometheus asks for it."""

    name: str
    title: str
    expression: str
    lasting: str
    """For how long it must hold until Prometheus fires."""
    todo: str
    read: Callable[[Now], Reading]


@dataclass(frozen=True, slots=True)
class Alert:
    """Hold a rule with what it reads now."""

    rule: Rule
    reading: Reading


def _failures(now: Now) -> Reading:
    failed = sum(now.ended.get(status, 0) for status in _FAILURES)
    ended = failed + now.ended.get(DeploymentStatus.SUCCEEDED, 0)
    share = failed / ended if ended else 0.0
    return Reading(
        share > FAILURE_SHARE,
        f"{failed} of {ended} deployments that ended in the last hour failed ({share:.0%}).",
    )


def _long(now: Now) -> Reading:
    return Reading(
        now.longest_seconds > LONGEST_SECONDS,
        f"The longest has been running for {now.longest_seconds / 60:.0f} min.",
    )


def _backlog(now: Now) -> Reading:
    longest = max(now.queues, key=lambda queue: queue.ready, default=None)
    if longest is None or not longest.ready:
        return Reading(False, "No step waits for a worker.")
    return Reading(
        longest.ready > BACKLOG,
        f"In the queue {longest.name}: {longest.ready}, the first for {longest.oldest_seconds:.0f} s. "
        f"Workers that take them: {longest.workers}.",
    )


def _nobody(now: Now) -> Reading:
    left = [queue for queue in now.queues if queue.ready and not queue.workers]
    if not left:
        return Reading(False, "Every queue in which a step waits has a live worker.")
    waiting = ", ".join(f"{queue.name}: {queue.ready}" for queue in left)
    return Reading(True, f"Ready steps in queues that no live worker takes: {waiting}.")


def _dead(now: Now) -> Reading:
    counts = dict.fromkeys(("alive", "draining", "dead"), 0)
    for (_version, state), count in now.workers.items():
        counts[state] += count
    return Reading(
        counts["dead"] > 0,
        f"{counts['dead']} dead, {counts['alive']} alive, {counts['draining']} draining.",
    )


def _database(now: Now) -> Reading:
    return Reading(
        now.outages > 0,
        f"Outages that workers told of in the last 10 minutes: {now.outages}.",
    )


def _silent(_now: Now) -> Reading:
    return Reading(False, "These figures were read; that they are not, only Prometheus can see.")


RULES = (
    Rule(
        name="ConductorFailureRate",
        title=f"More than {FAILURE_SHARE:.0%} of the deployments fail",
        expression=(
            'sum(increase(conductor_deployments_finished_total{status=~"failed|timed_out"}[1h])) / '
            "sum(increase(conductor_deployments_finished_total"
            f'{{status=~"succeeded|failed|timed_out"}}[1h])) > {FAILURE_SHARE}'
        ),
        lasting="5m",
        todo="Look at the failed deployments: is it one template, one environment, one provider?",
        read=_failures,
    ),
    Rule(
        name="ConductorLongRun",
        title=f"A deployment runs for more than {LONGEST_SECONDS // 60} minutes",
        expression=f"conductor_deployment_longest_running_seconds > {LONGEST_SECONDS}",
        lasting="1m",
        todo="Look at its running step's log.",
        read=_long,
    ),
    Rule(
        name="ConductorBacklog",
        title=f"More than {BACKLOG} steps of a queue wait for a worker",
        expression=f'conductor_queue_depth{{state="ready"}} > {BACKLOG}',
        lasting="5m",
        todo="Start more workers for the queue, unless maintenance or a limit holds it.",
        read=_backlog,
    ),
    Rule(
        name="ConductorNoWorker",
        title="Steps are ready and no worker takes them",
        expression=(
            'conductor_queue_depth{state="ready"} > 0 and on(queue) conductor_queue_workers == 0'
        ),
        lasting="1m",
        todo="Start a worker for the queue, or resume one that drains.",
        read=_nobody,
    ),
    Rule(
        name="ConductorDeadWorkers",
        title="Workers are dead",
        expression='sum(conductor_workers{state="dead"}) > 0',
        lasting="1m",
        todo="Look at the worker's host, and start another; its steps are taken over by themselves.",
        read=_dead,
    ),
    Rule(
        name="ConductorDatabaseErrors",
        title="The database cannot be reached",
        expression=(
            "conductor_database_up == 0 or "
            'increase(conductor_database_errors_total{kind="connection"}[10m]) > 0'
        ),
        lasting="0m",
        todo="Look at PostgreSQL's log, its connections and the network.",
        read=_database,
    ),
    Rule(
        name="ConductorSilent",
        title="No figures come: no portal answers, or the database hangs",
        expression="absent(conductor_database_up)",
        lasting="2m",
        todo=(
            "Look whether a web process runs and can be reached (/healthz), and whether PostgreSQL "
            "answers it (/readyz)."
        ),
        read=_silent,
    ),
)


def alerts(now: Now) -> list[Alert]:
    """Return every rule with what it reads in these figures."""
    return [Alert(rule, rule.read(now)) for rule in RULES]


def rule_file() -> str:
    """Return the rules as a Prometheus rule file."""
    rules = [
        {
            "alert": rule.name,
            "expr": rule.expression,
            "for": rule.lasting,
            "labels": {"severity": "warning"},
            "annotations": {"summary": f"{rule.title}.", "description": rule.todo},
        }
        for rule in RULES
    ]
    head = "# Made by `manage.py health --rules`, which has the thresholds.\n"
    groups = {"groups": [{"name": "conductor", "rules": rules}]}
    return head + yaml.safe_dump(groups, sort_keys=False, width=100)
