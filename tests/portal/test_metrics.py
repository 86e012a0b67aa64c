from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
import yaml
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.db import OperationalError
from django.test import Client
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from portal.views import metrics
from provisioning.models import Worker
from provisioning.services.figures.alerts import RULES, rule_file
from provisioning.services.people import system_user
from tests.provisioning.place import Place

TOKEN = "a-token-of-prometheus"
SECRET = "s3cret-pw"


@pytest.fixture(autouse=True)
def token(settings: LazySettings) -> None:
    settings.CONDUCTOR_METRICS_TOKEN = TOKEN


def scrape(client: Client) -> str:
    answer = client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200
    return answer.content.decode()


def value(text: str, name: str, **labels: str) -> float | None:
    """Return a sample's value."""
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return None


def test_what_happened_is_read(client: Client, place: Place) -> None:
    place.template("part")
    place.deploy("  one:\n    type: part\n")
    place.deploy("  one:\n    type: part\n    params: {fail: No, permanent: true}\n")
    Worker.objects.create(
        host="alpha", pid=1, version="1.0.0", queues=["default"], last_seen_at=timezone.now()
    )

    text = scrape(client)

    finished = "conductor_deployments_finished_total"
    assert value(text, finished, kind="deploy", status="succeeded") == 1
    assert value(text, finished, kind="deploy", status="failed") == 1
    assert value(text, finished, kind="teardown", status="failed") == 0
    assert value(text, "conductor_deployments_submitted_total", kind="deploy") == 2
    assert value(text, "conductor_queue_depth", queue="default", state="ready") == 0
    assert value(text, "conductor_queue_workers", queue="default") == 1
    assert value(text, "conductor_workers", version="1.0.0", state="alive") == 1
    assert value(text, "conductor_leases_lost_total") == 0
    assert value(text, "conductor_database_up") == 1
    assert value(text, "conductor_database_errors_total", kind="connection") == 0
    running = {"phase": "running", "driver": "fake"}
    assert value(text, "conductor_step_phase_seconds_count", **running) == 2
    assert value(text, "conductor_step_phase_seconds_bucket", le="+Inf", **running) == 2
    assert value(text, "conductor_step_phase_seconds_bucket", le="7200", **running) == 2
    assert value(text, "conductor_deployment_phase_seconds_count", phase="waiting") == 2


def test_what_waits_and_how_states_are_shipped_is_read(client: Client, place: Place) -> None:
    place.template("part")
    place.submit("  one:\n    type: part\n")
    step = place.deploy("  two:\n    type: part\n", application="billing").steps.get()
    step.resource.state_versions.create(number=1, step=step, attempt=1, size=1, lag_ms=20)
    place.submit("  three:\n    type: part\n", application="third")

    text = scrape(client)

    assert value(text, "conductor_queue_depth", queue="default", state="ready") == 1
    assert value(text, "conductor_deployments", status="running") == 1
    assert value(text, "conductor_state_shipping_lag_seconds", quantile="0.95") == 0.02


def test_openmetrics_is_spoken_to_those_who_ask(client: Client, place: Place) -> None:
    answer = client.get(
        "/metrics",
        headers={
            "Authorization": f"Bearer {TOKEN}",
            "Accept": "application/openmetrics-text; version=1.0.0",
        },
    )

    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert answer.content.decode().endswith("# EOF\n")


@pytest.mark.parametrize("shown", ["", "Bearer wrong", f"Token {TOKEN}", "Bearer"])
def test_without_the_token_nothing_is_told(client: Client, db: None, shown: str) -> None:
    answer = client.get("/metrics", headers={"Authorization": shown})

    assert answer.status_code == 401
    assert b"conductor_" not in answer.content


def test_no_token_is_good_if_none_is_set(client: Client, db: None, settings: LazySettings) -> None:
    settings.CONDUCTOR_METRICS_TOKEN = ""

    assert client.get("/metrics", headers={"Authorization": "Bearer "}).status_code == 401


def test_staff_read_it_in_the_browser_and_others_do_not(
    client: Client, place: Place, alice: User
) -> None:
    client.force_login(alice)
    assert client.get("/metrics").status_code == 401
    client.force_login(system_user())
    assert client.get("/metrics").status_code == 200


def test_without_a_database_it_says_just_that(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Any:
        raise OperationalError("no connection")

    monkeypatch.setattr(metrics, "read_now", fail)

    text = scrape(client)

    assert value(text, "conductor_database_up") == 0
    assert text.count("conductor_") == 3


def test_no_label_holds_a_secret(client: Client, place: Place) -> None:
    place.template("postgres", outputs={"password": True}, config={"outputs": {"password": SECRET}})
    place.deploy("  db:\n    type: postgres\n    params: {fail: s3cret-pw, permanent: true}\n")
    place.deploy("  db:\n    type: postgres\n", application="billing")

    assert SECRET not in scrape(client)


def test_a_scrape_costs_as_many_queries_however_much_there_is(
    client: Client, place: Place, django_assert_num_queries: Any
) -> None:
    place.template("part")
    place.deploy("".join(f"  part-{number}:\n    type: part\n" for number in range(10)))
    Worker.objects.bulk_create(
        Worker(host=f"{number}", pid=1, last_seen_at=timezone.now() - timedelta(seconds=number))
        for number in range(40)
    )

    with django_assert_num_queries(10):
        scrape(client)


def test_the_rule_file_asks_for_figures_that_there_are(client: Client, place: Place) -> None:
    text = scrape(client)
    names = {
        sample.name for family in text_string_to_metric_families(text) for sample in family.samples
    }
    # What has no rows yet has no samples.
    names |= {"conductor_workers"}

    groups = yaml.safe_load(rule_file())["groups"]

    rules = [rule for group in groups for rule in group["rules"]]
    assert [rule["alert"] for rule in rules] == [rule.name for rule in RULES]
    asked = {name for rule in rules for name in re.findall(r"conductor_\w+", rule["expr"])}
    assert asked <= names
    assert all(re.fullmatch(r"\d+[smh]", rule["for"]) for rule in rules)


def test_the_rule_file_in_the_documentation_is_the_one_of_the_code(settings: LazySettings) -> None:
    path = settings.BASE_DIR / "docs" / "prometheus-rules.yaml"

    assert path.read_text() == rule_file()
