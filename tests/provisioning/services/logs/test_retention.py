from __future__ import annotations

from datetime import timedelta

import pytest
from django.conf import LazySettings
from django.utils import timezone

from provisioning.models import Deployment, LogChunk
from provisioning.services.logs import retention
from provisioning.services.logs.retention import delete_old_logs
from tests.provisioning.place import Place

PART = "  one:\n    type: part\n"


def ended_days_ago(place: Place, days: float) -> Deployment:
    """Return a deployment that ended then, and said what it did the hour before."""
    number = Deployment.objects.count()
    deployment = place.deploy(f"{PART}    params: {{number: {number}}}\n")
    then = timezone.now() - timedelta(days=days)
    Deployment.objects.filter(pk=deployment.pk).update(finished_at=then)
    said = LogChunk.objects.filter(step__deployment=deployment)
    said.update(created_at=then - timedelta(hours=1))
    assert said.exists()
    return deployment


@pytest.fixture
def years(place: Place, settings: LazySettings) -> list[Deployment]:
    """Return deployments that ended long ago, just before the limit, and since."""
    settings.CONDUCTOR_LOG_DAYS = 30
    place.template("part")
    return [ended_days_ago(place, days) for days in (400, 31, 29.5, 1)]


def with_logs() -> list[int]:
    return sorted(set(LogChunk.objects.values_list("step__deployment", flat=True)))


def test_logs_go_some_time_after_the_end_of_their_deployment(years: list[Deployment]) -> None:
    assert delete_old_logs() > 0

    assert with_logs() == [deployment.pk for deployment in years[2:]]
    assert delete_old_logs() == 0


def test_a_deployment_that_goes_on_keeps_all_it_said(place: Place, years: list[Deployment]) -> None:
    Deployment.objects.filter(pk=years[0].pk).update(finished_at=None)

    delete_old_logs()

    assert with_logs() == [years[0].pk, years[2].pk, years[3].pk]


def test_much_goes_in_batches(years: list[Deployment], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "CHUNKS_AT_ONCE", 1)

    delete_old_logs()

    assert with_logs() == [deployment.pk for deployment in years[2:]]


def test_what_one_call_deletes_is_limited(
    years: list[Deployment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "CHUNKS_AT_ONCE", 1)
    monkeypatch.setattr(retention, "MOST_BATCHES", 1)

    assert delete_old_logs() == 1
