"""What Prometheus reads: figures of the rows, not of this process, since the work is in many.

Labels hold names that staff gave (queues, drivers, versions) and words of Conductor's own: nothing
that a deployment's files say, so no secret.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from hmac import compare_digest
from itertools import product

from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_GET
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from provisioning.models import DeploymentKind
from provisioning.models.deployments import TERMINAL_STATUSES
from provisioning.services.figures.counters import BUCKETS, Counter, read_counters
from provisioning.services.figures.now import Now, read_now

COUNTERS = {
    "deployments_submitted": ("Deployments that were submitted.", ("kind",)),
    "deployments_finished": ("Deployments that ended, by how.", ("kind", "status")),
    "steps_finished": ("Steps that ended, by how.", ("action", "driver", "status")),
    "leases_lost": ("Steps whose worker died or fell silent.", ()),
    "recoveries": ("Steps that were recovering, by what became of them.", ("outcome",)),
}
HISTOGRAMS = {
    "deployment_phase_seconds": (
        "How long deployments waited to start, and then ran.",
        ("phase",),
    ),
    "step_phase_seconds": (
        "How long steps that were ready waited for a worker, and then ran.",
        ("driver", "phase"),
    ),
}


@require_GET
def metrics(request: HttpRequest) -> HttpResponse:
    """Answer Prometheus, which shows CONDUCTOR_METRICS_TOKEN, or a signed-in platform engineer."""
    if not _may_read(request):
        return HttpResponse(
            "Show the token CONDUCTOR_METRICS_TOKEN as a bearer token, or sign in as staff.\n",
            status=401,
            content_type="text/plain; charset=utf-8",
            headers={"WWW-Authenticate": "Bearer"},
        )
    registry = CollectorRegistry()
    registry.register(RowsCollector())
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return HttpResponse(encode(registry), content_type=content_type)


class RowsCollector(Collector):
    """Collect the figures from the rows; without a database, only that there is none."""

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of this moment."""
        up = GaugeMetricFamily("conductor_database_up", "Whether the database can be reached.")
        try:
            now, counters = read_now(), read_counters()
        except (OperationalError, InterfaceError):
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield from _gauges(now)
        yield from _counters(counters, now)
        yield from _histograms(counters)

    def describe(self) -> list[Metric]:
        """Name nothing beforehand: that would cost a scrape."""
        return []


def _may_read(request: HttpRequest) -> bool:
    token = settings.CONDUCTOR_METRICS_TOKEN
    scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return bool(token) and compare_digest(shown.strip().encode(), token.encode())
    try:
        return request.user.is_active and request.user.is_staff
    except (OperationalError, InterfaceError):
        return False  # who asks cannot be told without the database


def _gauges(now: Now) -> Iterator[Metric]:
    yield _gauge(
        "deployments",
        "Deployments that have not ended.",
        ["status"],
        {(status,): count for status, count in now.deployments.items()},
    )
    yield _gauge(
        "deployment_longest_running_seconds",
        "For how long the deployment has been running that has been for the longest.",
        [],
        {(): now.longest_seconds},
    )
    yield _gauge("steps", "Steps that workers have.", ["queue", "status"], now.steps)
    depth: dict[tuple[str, ...], int] = {
        (queue.name, state): count
        for queue in now.queues
        for state, count in (("ready", queue.ready), ("blocked", queue.blocked))
    }
    about = "Steps that wait: ready ones for a worker, blocked ones for another step."
    yield _gauge("queue_depth", about, ["queue", "state"], depth)
    yield _gauge(
        "queue_oldest_age_seconds",
        "For how long the first of the ready steps has been waiting.",
        ["queue"],
        {(queue.name,): queue.oldest_seconds for queue in now.queues},
    )
    yield _gauge(
        "queue_workers",
        "Live workers that take a queue.",
        ["queue"],
        {(queue.name,): queue.workers for queue in now.queues},
    )
    yield _gauge("workers", "Workers that have not stopped.", ["version", "state"], now.workers)
    yield _gauge(
        "state_shipping_lag_seconds",
        "How long states took, lately, from the tool's file into the database.",
        ["quantile"],
        {(quantile,): seconds for quantile, seconds in now.lag_seconds.items()},
    )


def _gauge(
    name: str, about: str, labels: list[str], values: Mapping[tuple[str, ...], float]
) -> Metric:
    family = GaugeMetricFamily(f"conductor_{name}", about, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric(key, value)
    return family


def _counters(counters: Iterable[Counter], now: Now) -> Iterator[Metric]:
    values: dict[str, dict[tuple[str, ...], float]] = defaultdict(dict)
    values["leases_lost"][()] = 0
    # A series that begins at 0 shows also its first increase.
    values["deployments_finished"] = dict.fromkeys(
        product(map(str, DeploymentKind), map(str, TERMINAL_STATUSES)), 0
    )
    errors = 0.0
    for counter in counters:
        if counter.name in COUNTERS:
            _, names = COUNTERS[counter.name]
            values[counter.name][tuple(counter.labels[name] for name in names)] = counter.value
        elif counter.name == "database_errors":
            errors = counter.value
    for name, (about, names) in COUNTERS.items():
        yield _counter(name, about, names, values[name])
    yield _counter(
        "database_errors",
        "How often workers could not reach the database, and how often it broke a deadlock.",
        ("kind",),
        {("connection",): errors, ("deadlock",): now.deadlocks},
    )


def _counter(
    name: str, about: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], float]
) -> Metric:
    family = CounterMetricFamily(f"conductor_{name}", about, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric(key, value)
    return family


def _histograms(counters: Iterable[Counter]) -> Iterator[Metric]:
    values = {(each.name, tuple(sorted(each.labels.items()))): each.value for each in counters}
    for name, (about, names) in HISTOGRAMS.items():
        family = HistogramMetricFamily(f"conductor_{name}", about, labels=names)
        for (part, labels), count in values.items():
            if part != f"{name}_count":
                continue
            buckets = [
                (f"{bound:g}", values.get((f"{name}_bucket", _with(labels, bound)), 0.0))
                for bound in BUCKETS
            ]
            family.add_metric(
                [dict(labels)[each] for each in names],
                [*buckets, ("+Inf", count)],
                values[f"{name}_sum", labels],
            )
        yield family


def _with(labels: tuple[tuple[str, str], ...], bound: float) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((*labels, ("le", f"{bound:g}"))))
