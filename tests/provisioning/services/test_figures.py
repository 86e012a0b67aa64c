from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F
from django.db.models.functions import Now as DatabaseNow
from django.utils import timezone

from provisioning.models import (
    AuditEvent,
    Deployment,
    Figure,
    LogChunk,
    StateVersion,
    Step,
    StepStatus,
    Worker,
)
from provisioning.models.audit import DATABASE_LOST
from provisioning.services import transitions
from provisioning.services.audit import record
from provisioning.services.figures import counters
from provisioning.services.figures.alerts import RULES, alerts
from provisioning.services.figures.counters import count_events, read_counters
from provisioning.services.figures.now import Queue, read_now
from provisioning.workers.tasks import claim
from tests.provisioning.place import Place

PART = "  one:\n    type: part\n"
CHAIN = PART + "  two:\n    type: part\n    params: {of: '${resources.one.host}'}\n"
FAILS = "  one:\n    type: part\n    params: {fail: Broken, permanent: true}\n"


@pytest.fixture(autouse=True)
def templates(place: Place) -> None:
    place.template("part", outputs={"host": False})


def counted(name: str, **labels: str) -> float:
    """Return the sum of the counters of this name that have these labels."""
    return sum(
        counter.value
        for counter in read_counters()
        if counter.name == name and labels.items() <= dict(counter.labels).items()
    )


def worker(seconds_ago: float, **fields: Any) -> Worker:
    return Worker.objects.create(
        **{
            "host": "alpha",
            "pid": 1,
            "version": "1.0.0",
            "queues": ["default"],
            "last_seen_at": timezone.now() - timedelta(seconds=seconds_ago),
            **fields,
        }
    )


def test_what_ended_is_counted_by_how(place: Place) -> None:
    place.deploy(CHAIN)
    place.deploy(FAILS, application="billing")
    place.teardown()

    assert counted("deployments_submitted", kind="deploy") == 2
    assert counted("deployments_finished", kind="deploy", status="succeeded") == 1
    assert counted("deployments_finished", kind="deploy", status="failed") == 1
    assert counted("deployments_finished", kind="teardown", status="succeeded") == 1
    assert counted("steps_finished", action="ensure", driver="fake", status="succeeded") == 2
    assert counted("steps_finished", action="ensure", driver="fake", status="failed") == 1
    assert counted("steps_finished", action="destroy", driver="fake", status="succeeded") == 2


def test_durations_fall_into_their_classes(place: Place) -> None:
    deployment = place.submit(CHAIN)
    now = timezone.now()
    Deployment.objects.update(
        created_at=now - timedelta(seconds=100), started_at=now - timedelta(seconds=60)
    )
    place.done(deployment)
    Deployment.objects.update(finished_at=now)
    first, second = deployment.steps.order_by("position")
    Step.objects.filter(pk=first.pk).update(
        started_at=now - timedelta(seconds=50), finished_at=now - timedelta(seconds=30)
    )
    Step.objects.filter(pk=second.pk).update(
        started_at=now - timedelta(seconds=28), finished_at=now
    )

    def total(name: str, **labels: str) -> tuple[float, float]:
        return counted(f"{name}_count", **labels), round(counted(f"{name}_sum", **labels), 3)

    assert total("deployment_phase_seconds", phase="waiting") == (1, 40)
    assert total("deployment_phase_seconds", phase="running") == (1, 60)
    assert total("step_phase_seconds", phase="queued", driver="fake") == (2, 12)
    assert total("step_phase_seconds", phase="running", driver="fake") == (2, 48)
    classes = {
        bound: counted("step_phase_seconds_bucket", phase="running", le=bound)
        for bound in ("10", "30", "7200")
    }
    assert classes == {"10": 0, "30": 2, "7200": 2}


def test_lost_leases_recoveries_and_outages_are_counted(place: Place) -> None:
    place.submit(PART)
    step = claim("default")
    assert step is not None
    transitions.move(step, StepStatus.RECOVERING)
    transitions.move(step, StepStatus.PENDING)
    step = claim("default")
    assert step is not None
    transitions.move(step, StepStatus.PENDING)
    record(
        actor=None, action=DATABASE_LOST, subject_type="worker", subject_id="x", subject="alpha:1"
    )

    assert counted("leases_lost") == 2
    assert counted("recoveries", outcome="pending") == 1
    assert counted("database_errors") == 1


def test_counting_for_good_changes_no_counter(place: Place) -> None:
    place.deploy(CHAIN)
    before = read_counters()

    count_events(settled_seconds=-10)

    assert Figure.objects.exclude(name="counted_through").count() == len(before)
    assert read_counters() == before
    count_events(settled_seconds=-10)
    assert read_counters() == before


def test_counting_in_batches_comes_to_the_same(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.deploy(CHAIN)
    before = read_counters()
    monkeypatch.setattr(counters, "BATCH", 3)

    count_events(settled_seconds=-10)

    assert read_counters() == before
    assert Figure.objects.get(name="counted_through").value == AuditEvent.objects.latest("pk").pk


def test_events_that_may_still_overtake_one_another_are_not_counted_for_good(place: Place) -> None:
    place.deploy(CHAIN)

    count_events()

    assert list(Figure.objects.values_list("name", "value")) == [("counted_through", 0)]


def test_no_counter_goes_back_when_rows_are_removed(place: Place) -> None:
    place.deploy(CHAIN)
    worker(1)
    count_events(settled_seconds=-10)
    before = read_counters()

    for model in (LogChunk, StateVersion, Worker):
        model.objects.all().delete()
    Step.needs.through.objects.all().delete()
    Step.objects.all().delete()
    Deployment.objects.all().delete()

    assert read_counters() == before
    place.deploy(PART, application="billing")
    after = {(each.name, str(each.labels)): each.value for each in read_counters()}
    assert all(after[each.name, str(each.labels)] >= each.value for each in before)
    assert counted("deployments_finished", status="succeeded") == 2


def test_what_waits_in_a_queue(place: Place) -> None:
    place.submit(CHAIN)
    Deployment.objects.update(started_at=F("started_at") - timedelta(seconds=90))
    worker(1)
    worker(1, draining=True, queues=["default", "other"])

    now = read_now()

    default, other = now.queues
    assert (default.name, default.ready, default.blocked, default.workers) == ("default", 1, 1, 1)
    assert 90 <= default.oldest_seconds < 120
    assert other == Queue("other")
    assert now.deployments["running"] == 1
    assert 90 <= now.longest_seconds < 120


def test_a_queue_that_only_an_environment_names_is_told_of(place: Place) -> None:
    assert read_now().queues == (Queue("default"),)


def test_what_workers_have(place: Place) -> None:
    place.submit(PART)
    claim("default")

    assert read_now().steps == {("default", "running"): 1}


def test_workers_by_version_and_state(place: Place) -> None:
    worker(1)
    worker(1, draining=True)
    worker(60, version="0.9.0")
    worker(1, stopped_at=timezone.now())
    worker(3 * 3600)

    assert read_now().workers == {
        ("1.0.0", "alive"): 1,
        ("1.0.0", "draining"): 1,
        ("0.9.0", "dead"): 1,
    }


def test_how_long_states_took(place: Place) -> None:
    place.deploy(PART)
    step = Step.objects.get()
    for number, lag in enumerate((10, 20, 30, None)):
        StateVersion.objects.create(
            resource=step.resource, number=number, step=step, attempt=1, size=1, lag_ms=lag
        )

    assert read_now().lag_seconds == {"0.5": 0.02, "0.95": 0.029, "1": 0.03}


def firing(place: Place) -> set[str]:
    return {alert.rule.name for alert in alerts(read_now()) if alert.reading.firing}


def test_nothing_fires_where_all_is_well(place: Place) -> None:
    place.deploy(CHAIN)
    worker(1)

    assert firing(place) == set()
    assert len(RULES) == 7


def test_failures_above_a_tenth_fire(place: Place) -> None:
    place.deploy(PART)
    Deployment.objects.bulk_create(
        Deployment(
            kind="deploy",
            application=place.application(),
            environment=place.environment,
            status="failed" if number == 0 else "succeeded",
            plan_digest="1",
            finished_at=DatabaseNow(),
        )
        for number in range(9)
    )
    assert firing(place) == set()

    Deployment.objects.filter(status="succeeded").latest("pk").delete()

    assert firing(place) == {"ConductorFailureRate"}
    (reading,) = [each.reading for each in alerts(read_now()) if each.reading.firing]
    assert reading.text == "1 of 9 deployments that ended in the last hour failed (11%)."


def test_failures_of_long_ago_do_not_fire(place: Place) -> None:
    place.deploy(FAILS)
    Deployment.objects.update(finished_at=timezone.now() - timedelta(hours=2))

    assert firing(place) == set()


def test_a_long_run_fires(place: Place) -> None:
    place.submit(PART)
    worker(1)
    Deployment.objects.update(started_at=timezone.now() - timedelta(minutes=31))

    assert firing(place) == {"ConductorLongRun"}


def test_a_backlog_fires(place: Place) -> None:
    parts = "".join(f"  part-{number}:\n    type: part\n" for number in range(51))
    place.submit(parts)
    worker(1)
    assert firing(place) == {"ConductorBacklog"}

    claim("default")
    assert firing(place) == set()


def test_a_dead_worker_fires_for_an_hour(place: Place) -> None:
    worker(1)
    dead = worker(31)
    assert firing(place) == {"ConductorDeadWorkers"}

    Worker.objects.filter(pk=dead.pk).update(last_seen_at=timezone.now() - timedelta(hours=2))
    assert firing(place) == set()


def test_a_dead_worker_fires_while_nobody_takes_a_queue_of_it_that_is_needed(place: Place) -> None:
    worker(2 * 3600, queues=["gone"])
    assert firing(place) == set()

    worker(2 * 3600, queues=["default", "gone"])
    assert firing(place) == {"ConductorDeadWorkers"}

    worker(1)
    assert firing(place) == set()


def test_steps_that_no_worker_takes_fire(place: Place) -> None:
    place.submit(PART)
    draining = worker(1, draining=True)
    assert firing(place) == {"ConductorNoWorker"}
    (reading,) = [each.reading for each in alerts(read_now()) if each.reading.firing]
    assert reading.text == "Ready steps in queues that no live worker takes: default: 1."

    Worker.objects.filter(pk=draining.pk).update(draining=False)
    assert firing(place) == set()


def test_that_no_figures_come_is_a_rule_for_prometheus_alone() -> None:
    (rule,) = [rule for rule in RULES if "absent" in rule.expression]
    assert (rule.name, rule.expression) == ("ConductorSilent", "absent(conductor_database_up)")


def test_an_outage_of_the_database_fires(place: Place) -> None:
    record(
        actor=None, action=DATABASE_LOST, subject_type="worker", subject_id="x", subject="alpha:1"
    )

    assert firing(place) == {"ConductorDatabaseErrors"}
