"""The stories that resource sharing is for, told with the shipped catalogue and real Terraform."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command

from provisioning.models import Resource, ResourceConsumer, Step
from provisioning.workers.tasks import work

pytestmark = [pytest.mark.django_db, pytest.mark.terraform]

SHARED_COSMOS = """
  database:
    type: azure-cosmosdb
    reference:
      mode: shared
      name: "shared-cosmos-db"
    params:
      tier: Standard
"""
DEDICATED_STORAGE = """
  storage:
    type: azure-blob-storage
    reference:
      mode: dedicated
    params:
      replication: LRS
"""
RESOURCE_GROUP = """
  resource-group:
    type: azure-resource-group
    reference:
      mode: shared
      name: "prod-rg"
    params:
      location: westus2
"""
GATEWAY = (
    RESOURCE_GROUP
    + """
  insights:
    type: application-insights
    reference:
      mode: shared
      name: "prod-insights"
    dependsOn:
      - resource-group
    params:
      resourceGroupId: ${resource-group.id}
  gateway:
    type: api-management
    dependsOn:
      - insights
    params:
      applicationInsightsId: ${insights.id}
"""
)


@pytest.fixture(autouse=True)
def organisation(db: None) -> None:
    """Give every story two applications, one environment and the shipped catalogue."""
    call("organisation", "create", "acme")
    call("team", "create", "platform")
    for application in ("app-a", "app-b"):
        call("application", "create", application, "--team", "platform")
    call("environment", "create", "prod", "--kind", "production")
    call("catalog", "sync", str(settings.BASE_DIR / "catalog"))


def call(*arguments: str) -> str:
    output = StringIO()
    call_command(*arguments, stdout=output, stderr=output)
    return output.getvalue()


def deploy(folder: Path, application: str, resources: str, workload: str = "main") -> None:
    """Deploy one workload with these resources, and do all the work there is."""
    file = folder / "score.yaml"
    file.write_text(
        f"apiVersion: score.dev/v1b1\nmetadata:\n  name: {workload}\n"
        f"containers:\n  main:\n    image: busybox\nresources:{resources}"
    )
    call("deploy", str(file), "--app", application, "--env", "prod")
    work("default")


def teardown(application: str) -> None:
    """Tear an application down, and do all the work there is."""
    call("teardown", "--app", application, "--env", "prod")
    work("default")


def outputs(application: str) -> dict[str, Any]:
    """Return what the workload `main` gets from each alias, secrets included."""
    answer = call("outputs", "--app", application, "--env", "prod", "--format", "json", "--reveal")
    values: dict[str, Any] = json.loads(answer)["main"]
    return values


def consumers(resource: Resource) -> list[str]:
    """Return the applications that use a resource."""
    active = ResourceConsumer.objects.filter(resource=resource, state="active")
    names = active.values_list("workload__application__name", flat=True)
    return sorted(names)


def drivers_ran() -> int:
    return Step.objects.filter(driver_ran=True).count()


def destroyed() -> list[str]:
    """Return the types of what was destroyed, in the order in which it was."""
    steps = Step.objects.filter(action="destroy", status="succeeded").order_by("finished_at")
    return list(steps.values_list("resource__type", flat=True))


def test_day_one_to_day_twenty_one(tmp_path):
    # Day 1: not found, so it is made; application A is its consumer.
    deploy(tmp_path, "app-a", SHARED_COSMOS)
    database = Resource.objects.get(key="shared/shared-cosmos-db")
    assert (database.state, consumers(database)) == ("active", ["app-a"])
    assert {"connectionString", "endpoint"} <= set(outputs("app-a")["database"])
    assert database.state_location == f"resources/{database.pk}"

    # Day 7: found, so nothing is provisioned; application B gets the same outputs.
    deploy(tmp_path, "app-b", SHARED_COSMOS)
    assert drivers_ran() == 1
    assert consumers(database) == ["app-a", "app-b"]
    assert outputs("app-b") == outputs("app-a")

    # Day 14: application A leaves; the database still has a consumer and stays.
    teardown("app-a")
    database.refresh_from_db()
    assert (database.state, consumers(database)) == ("active", ["app-b"])

    # Day 21: the last consumer leaves; the database is destroyed.
    teardown("app-b")
    database.refresh_from_db()
    assert (database.state, consumers(database), destroyed()) == (
        "deleted",
        [],
        ["azure-cosmosdb"],
    )
    assert not database.outputs.exists()


def test_shared_database_of_an_api_and_a_background_worker(tmp_path):
    deploy(tmp_path, "app-a", SHARED_COSMOS)
    deploy(tmp_path, "app-b", SHARED_COSMOS)

    api, worker = outputs("app-a")["database"], outputs("app-b")["database"]
    assert api["connectionString"] == worker["connectionString"]

    teardown("app-b")
    assert Resource.objects.get().state == "active"
    teardown("app-a")
    assert Resource.objects.get().state == "deleted"


def test_dedicated_storage_goes_with_its_application(tmp_path):
    deploy(tmp_path, "app-a", DEDICATED_STORAGE)
    deploy(tmp_path, "app-b", DEDICATED_STORAGE)

    assert Resource.objects.count() == 2
    assert outputs("app-a")["storage"]["name"] != outputs("app-b")["storage"]["name"]

    teardown("app-a")
    assert set(Resource.objects.values_list("created_by__name", "state")) == {
        ("app-a", "deleted"),
        ("app-b", "active"),
    }


def test_shared_infrastructure_of_an_environment(tmp_path):
    deploy(tmp_path, "app-a", GATEWAY)
    deploy(tmp_path, "app-b", GATEWAY)

    group = Resource.objects.get(key="shared/prod-rg")
    insights = Resource.objects.get(key="shared/prod-insights")
    assert consumers(group) == consumers(insights) == ["app-a", "app-b"]
    assert Resource.objects.filter(type="api-management").count() == 2
    assert drivers_ran() == 4

    teardown("app-a")
    assert destroyed() == ["api-management"]


def test_resource_dependencies_come_first_and_go_last(tmp_path):
    deploy(tmp_path, "app-a", GATEWAY)

    made = Step.objects.filter(action="ensure").order_by("finished_at")
    chain = ["azure-resource-group", "application-insights", "api-management"]
    assert list(made.values_list("resource__type", flat=True)) == chain
    assert outputs("app-a")["resource-group"]["id"] in outputs("app-a")["insights"]["id"]

    teardown("app-a")
    assert destroyed() == chain[::-1]
