"""The templates in `catalog/`, read as `catalog sync` reads them and run by their drivers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from provisioning.drivers import get_driver
from provisioning.drivers.base import DriverError, DriverResult, Output
from provisioning.services.catalog.prepare import Prepared, prepare_template
from provisioning.services.catalog.template_file import read_template_file
from tests.provisioning.drivers.runs import MemoryRun, driver_input

CATALOG = Path(__file__).parents[3] / "catalog"
NAMES = sorted(path.parent.name for path in CATALOG.glob("*/template.yaml"))
WORKLOADS = {
    "web": {"ports": {"http": {"port": 80, "targetPort": 8080}}},
    "api": {"ports": {"grpc": {"port": 9000}}},
    "batch": {"ports": {}},
}


def _prepared(name: str) -> Prepared:
    return prepare_template(read_template_file(CATALOG / name / "template.yaml", name))


def _ensured(
    name: str, tmp_path: Path, alias: str = "it", *, variables: Any = None, **params: Any
) -> DriverResult:
    """Ensure a resource `web.<alias>` of the workload `web` with a built-in template."""
    prepared = _prepared(name)
    Draft202012Validator(dict(prepared.params_schema)).validate(params)
    resource = driver_input(
        CATALOG / name,
        uid=f"{name}.default#web.{alias}",
        params=params,
        config=prepared.file.config,
        content_digest=prepared.content.digest,
        outputs=tuple(Output(**said) for said in prepared.outputs),
    )
    told: dict[str, Any] = {"workloads": WORKLOADS, "variables": variables or {}}
    context = {key: value for key, value in told.items() if key in prepared.file.uses}
    resource = replace(resource, context={"workload": "web", "environment": "test"} | context)
    run = MemoryRun(tmp_path / "work" / name)
    result = get_driver(prepared.file.driver).ensure(resource, run)
    declared = {said["name"] for said in prepared.outputs}
    assert declared == set(result.outputs) or "*" in declared
    return result


def test_the_promised_templates_are_there() -> None:
    assert NAMES == [
        "api-management",
        "application-insights",
        "azure-blob-storage",
        "azure-cosmosdb",
        "azure-resource-group",
        "dns",
        "endpoint",
        "environment",
        "postgres",
        "route",
        "service",
        "service-port",
        "volume",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_each_template_is_valid_and_describes_itself(name: str) -> None:
    prepared = _prepared(name)
    assert prepared.file.name == prepared.file.type == name
    assert len(prepared.file.description) > 20
    assert all(said["description"] for said in prepared.outputs)
    properties = prepared.params_schema.get("properties", {})
    assert all("description" in schema for schema in properties.values())


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("azure", "ap"))])
def test_what_simulates_a_cloud_says_so(name: str) -> None:
    assert "simulation" in _prepared(name).file.description


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("azure", "ap"))])
def test_what_simulates_a_cloud_takes_the_environments_tags(name: str) -> None:
    text = (CATALOG / name / "main.tf").read_text()

    assert "conductor_tags" not in _prepared(name).params_schema["properties"]
    assert "= var.conductor_tags" in text


def test_a_volume_has_a_source(tmp_path: Path) -> None:
    assert _ensured("volume", tmp_path).outputs == {"source": "shop-db", "type": "volume"}


def test_a_host_name_is_under_localhost(tmp_path: Path) -> None:
    assert _ensured("dns", tmp_path).outputs["host"] == "shop-db.localhost"


@pytest.mark.parametrize("port", [80, "80", "http"])
def test_a_route_leads_to_a_service_port(tmp_path: Path, port: object) -> None:
    assert _ensured("route", tmp_path, host="x.localhost", path="/", port=port).outputs == {
        "url": "http://x.localhost/",
        "target": "web:8080",
    }


def test_a_route_to_a_missing_port_names_the_ports(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="web has no service port 99; it has http, 80") as failed:
        _ensured("route", tmp_path, host="x.localhost", port=99)
    assert failed.value.permanent is True


def test_a_service_is_the_workload_of_that_name(tmp_path: Path) -> None:
    assert _ensured("service", tmp_path, "api").outputs == {"name": "api"}


def test_a_service_of_a_missing_workload_names_the_workloads(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="no workload nowhere; it has web, api, batch"):
        _ensured("service", tmp_path, "nowhere")


@pytest.mark.parametrize(("port", "number"), [("http", 8080), (80, 8080), ("80", 8080)])
def test_a_service_port_is_found_by_name_and_number(
    tmp_path: Path, port: object, number: int
) -> None:
    found = _ensured("service-port", tmp_path, workload="web", port=port).outputs
    assert found == {"hostname": "web", "port": number}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"workload": "nowhere", "port": "x"}, "no workload nowhere; it has web, api, batch"),
        ({"workload": "api", "port": "x"}, "api has no service port x; it has grpc, 9000"),
        ({"workload": "batch", "port": "x"}, "batch has no service port x; it has none"),
    ],
)
def test_a_missing_service_port_names_what_there_is(
    tmp_path: Path, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(DriverError, match=message):
        _ensured("service-port", tmp_path, **params)


def test_an_endpoint_is_an_address(tmp_path: Path) -> None:
    assert _ensured("endpoint", tmp_path, "api", port=9000).outputs == {
        "name": "api",
        "url": "http://api:9000/",
    }


def test_the_environment_s_variables_are_outputs(tmp_path: Path) -> None:
    found = _ensured("environment", tmp_path, variables={"NAME": "World"})
    assert found.outputs == {"NAME": "World"}


def test_postgres_declares_score_s_outputs() -> None:
    outputs = {said["name"]: said["sensitive"] for said in _prepared("postgres").outputs}
    assert outputs == {
        "database": False,
        "host": False,
        "name": False,
        "password": True,
        "port": False,
        "url": True,
        "username": False,
    }


SIMULATED: list[tuple[str, dict[str, Any], set[str]]] = [
    ("azure-resource-group", {"location": "westus2"}, set()),
    (
        "azure-cosmosdb",
        {"tier": "Standard", "consistency": "Strong"},
        {"connectionString", "primaryKey"},
    ),
    (
        "azure-blob-storage",
        {"replication": "LRS", "resourceGroupId": "/group"},
        {"connectionString", "primaryKey"},
    ),
    (
        "application-insights",
        {"resourceGroupId": "/group"},
        {"connectionString", "instrumentationKey"},
    ),
    ("api-management", {"applicationInsightsId": "/insights"}, {"subscriptionKey"}),
]


@pytest.mark.terraform
@pytest.mark.parametrize(("name", "params", "sensitive"), SIMULATED)
def test_a_simulated_resource_has_plausible_outputs(
    tmp_path: Path, name: str, params: dict[str, Any], sensitive: set[str]
) -> None:
    result = _ensured(name, tmp_path, **params)
    assert result.sensitive == sensitive
    assert all(result.outputs.values())
    assert result.outputs["id"].startswith(params.get("resourceGroupId", "/subscriptions/"))


@pytest.mark.terraform
def test_a_value_that_the_cloud_would_refuse_is_refused(tmp_path: Path) -> None:
    schema = Draft202012Validator(dict(_prepared("azure-cosmosdb").params_schema))
    assert not schema.is_valid({"consistency": "Strongest"})
    assert not schema.is_valid({"tiers": "Standard"})
    assert schema.is_valid({"consistency": "Strong", "resourceGroupId": None})
