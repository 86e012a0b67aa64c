"""Components through the services: two APIs and a site become one of each thing that they need."""

from __future__ import annotations

from pathlib import Path

import pytest

from provisioning.models import Deployment, Resource, ResourceConsumer, Step
from provisioning.planning.plan import PlanError
from provisioning.services.catalog import sync_catalog
from provisioning.services.deployments import submit_deployment
from provisioning.services.outputs import resolved_outputs
from provisioning.services.people import system_user
from tests.provisioning.conftest import ledger, place
from tests.provisioning.place import Place

__all__ = ["ledger", "place"]

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "components"
SCORE = (EXAMPLE / "score.yaml").read_text()
THIRD = """
  post-api:
    type: crud-api
    params: {entityName: Post}
"""


@pytest.fixture(autouse=True)
def catalogue(place: Place) -> None:
    place.environment.defaults = {
        "*": {"networking": "isolated", "tags": {"Environment": "Production", "Team": "Platform"}},
        "functions": {"monitoring": {"enabled": True, "retentionDays": 90}},
    }
    place.environment.save()
    sync_catalog(
        organisation=place.organisation, source=str(EXAMPLE / "catalog"), actor=system_user()
    )


def deploy(place: Place, text: str = SCORE) -> Deployment:
    deployment = submit_deployment(
        application=place.application("shop"),
        environment=place.environment,
        files=[("score.yaml", text)],
        actor=None,
    )
    return place.done(deployment)


def only(type_: str) -> Resource:
    return Resource.objects.exclude(state="deleted").get(type=type_)


def given(resource: Resource) -> dict[str, object]:
    return {output.key: output.value for output in resource.outputs.all()}


def test_two_apis_share_one_account_and_one_function_app(place: Place) -> None:
    assert deploy(place).status == "succeeded"

    cosmos, functions, storage = only("cosmos"), only("functions"), only("storage")
    assert Resource.objects.count() == 6
    assert cosmos.params == {
        "enableServerless": True,
        "databases": [
            {"name": "product-db", "containers": [{"name": "product", "partitionKey": "/id"}]},
            {"name": "user-db", "containers": [{"name": "user", "partitionKey": "/id"}]},
        ],
        "networking": "isolated",
        "tags": {"Environment": "Production", "Team": "Platform"},
    }
    endpoint = given(cosmos)["endpoint"]
    assert endpoint == f"https://{cosmos.name}.documents.example:443/"
    assert given(functions)["environmentVariables"] == {
        "USER_COSMOS_ENDPOINT": endpoint,
        "USER_DATABASE_NAME": "user-db",
        "USER_CONTAINER_NAME": "user",
        "PRODUCT_COSMOS_ENDPOINT": endpoint,
        "PRODUCT_DATABASE_NAME": "product-db",
        "PRODUCT_CONTAINER_NAME": "product",
    }
    assert functions.params["monitoring"] == {"enabled": True, "retentionDays": 90}
    assert storage.params["containers"] == ["admin-portal"]
    assert cosmos.name.startswith("az-cosmos-shop-dev-")
    assert len(storage.name) == 24
    assert storage.name.isalnum()


def test_each_component_consumes_under_its_own_path(place: Place) -> None:
    deploy(place)

    aliases = ResourceConsumer.objects.filter(state="active").values_list("alias", flat=True)
    assert sorted(aliases) == [
        "admin-portal",
        "admin-portal/site-storage",
        "product-api",
        "product-api/crud-functions",
        "product-api/primary-database",
        "user-api",
        "user-api/crud-functions",
        "user-api/primary-database",
    ]


def test_workload_sees_what_its_components_give_and_nothing_below(place: Place) -> None:
    deploy(place)

    seen = resolved_outputs(
        application=place.application("shop"), environment=place.environment, actor=None
    )
    url = given(only("functions"))["url"]
    assert set(seen["backend"]) == {"admin-portal", "product-api", "user-api"}
    assert seen["backend"]["user-api"] == {
        "databaseEndpoint": given(only("cosmos"))["endpoint"],
        "url": f"{url}/user",
    }


def test_third_component_adds_its_database_and_leaves_with_it(place: Place) -> None:
    deploy(place)
    before = only("cosmos")

    deploy(place, SCORE + THIRD)
    grown = only("cosmos")
    assert grown.pk == before.pk
    assert [each["name"] for each in grown.params["databases"]] == [
        "post-db",
        "product-db",
        "user-db",
    ]

    deploy(place)
    assert [each["name"] for each in only("cosmos").params["databases"]] == [
        "product-db",
        "user-db",
    ]


def test_same_again_runs_nothing(place: Place) -> None:
    deploy(place)

    again = deploy(place)
    assert again.status == "succeeded"
    assert not Step.objects.filter(deployment=again).exists()


def test_teardown_leaves_nothing(place: Place) -> None:
    deploy(place)

    assert place.teardown("shop").status == "succeeded"
    assert set(Resource.objects.values_list("state", flat=True)) == {"deleted"}


def test_account_that_does_not_suit_the_apis_is_refused_with_their_names(place: Place) -> None:
    place.environment.defaults["cosmos"] = {"consistency": "Eventual"}
    place.environment.save()

    with pytest.raises(PlanError) as refused:
        deploy(place)

    assert (
        "#primary-database-d39d0be2 does not suit what crud-api 1.1.0 requires as "
        "`primary-database` for shop/backend.product-api, shop/backend.user-api: The API has to read its own "
        'writes (params.consistency is "Eventual"). consistency is decided by environment dev.'
    ) in str(refused.value)
    assert not Deployment.objects.exists()
    assert not Resource.objects.exists()
