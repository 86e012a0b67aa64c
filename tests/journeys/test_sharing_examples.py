"""The five ways to share of docs/sharing.md, each with its Score file from examples/."""

from __future__ import annotations

from pathlib import Path

import pytest

from provisioning.models import Deployment, Resource, ResourceTemplate
from provisioning.planning.plan import Plan
from provisioning.services.catalog import sync_catalog
from provisioning.services.deployments import plan_deployment, submit_deployment
from provisioning.services.people import system_user
from provisioning.services.pools import create_pool, newest_version
from provisioning.workers.tasks import work
from tests.provisioning.place import QUEUE, Place, new_place

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = ROOT / "examples" / "sharing"

pytestmark = pytest.mark.terraform


@pytest.fixture
def place(db: None) -> Place:
    """Return an organisation with the catalogue that comes with Conductor."""
    place = new_place()
    sync_catalog(organisation=place.organisation, source=str(ROOT / "catalog"), actor=system_user())
    return place


def deploy(place: Place, example: str, application: str, *, team: str = "everybody") -> str:
    """Deploy an example as an application, and return the key of its account."""
    place.team = team
    deployment = submit_deployment(
        application=place.application(application),
        environment=place.environment,
        files=[(example, (EXAMPLES / example).read_text())],
        actor=None,
    )
    assert deployment.status == "running" or not deployment.plan["steps"]
    (binding,) = deployment.plan["bindings"]
    return str(binding["key"])


def plan(place: Place, example: str, application: str) -> Plan:
    return plan_deployment(
        application=place.application(application),
        environment=place.environment,
        files=[(example, (EXAMPLES / example).read_text())],
    )


def test_dedicated_gives_everybody_an_account_of_their_own(place: Place) -> None:
    keys = {deploy(place, "dedicated.yaml", name) for name in ("one", "two")}

    assert keys == {
        "private/one/carts/store/azure-cosmosdb.default",
        "private/two/carts/store/azure-cosmosdb.default",
    }


def test_shared_by_name_gives_all_who_name_it_one_account(place: Place) -> None:
    keys = {deploy(place, "shared-by-name.yaml", name) for name in ("one", "two")}

    assert keys == {"shared/products"}
    assert Resource.objects.count() == 1


def test_shared_by_params_gives_one_account_to_equal_params(place: Place) -> None:
    keys = {deploy(place, "shared-by-params.yaml", name) for name in ("one", "two")}

    assert len(keys) == 1
    assert Resource.objects.get().match_slot


def test_shared_always_takes_the_account_that_there_is(place: Place) -> None:
    first = deploy(place, "shared-by-params.yaml", "one")

    assert deploy(place, "shared-always.yaml", "two") == first


def test_matched_shares_with_one_more_of_the_team(place: Place) -> None:
    first = deploy(place, "matched.yaml", "one")
    second = deploy(place, "matched.yaml", "two")
    third = deploy(place, "matched.yaml", "three")

    assert first == second
    assert first.endswith("/0")
    assert third == first.removesuffix("0") + "1"


def test_matched_does_not_share_with_another_team(place: Place) -> None:
    first = deploy(place, "matched.yaml", "one")
    other = deploy(place, "matched.yaml", "two", team="others")

    assert other == first.removesuffix("0") + "1"
    place.team = "third"
    binding = plan(place, "matched.yaml", "three").bindings[0]
    assert {each.reason for each in binding.considered} == {
        "the rule of its template azure-cosmosdb does not hold: consumer.team == resource.team"
    }


def test_organisation_finds_the_account_of_another_environment(place: Place) -> None:
    first = deploy(place.beside("staging"), "organisation.yaml", "one")
    second = deploy(place, "organisation.yaml", "two")

    assert second == f"in/acme/staging/{first}"
    joined = plan(place, "organisation.yaml", "three")
    assert [each.action for each in joined.resources] == ["reuse"]
    assert joined.scope == "organisation"


def test_pooled_claims_a_ready_account_and_runs_no_step(place: Place) -> None:
    create_pool(
        environment=place.environment,
        team=place.team_named("platform"),
        name="warm-stores",
        version=newest_version(ResourceTemplate.objects.get(name="azure-cosmosdb")),
        params={"tier": "Standard", "consistency": "Session"},
        size=1,
        max_size=2,
        actor=system_user(),
    )
    work(QUEUE)
    member = Resource.objects.get()
    assert (member.state, member.key.rpartition("/")[0]) == ("active", "pool/warm-stores")

    first = deploy(place, "pooled.yaml", "one")
    second = deploy(place, "pooled.yaml", "two")

    assert (first, second) == (member.key, "pool/warm-stores/two/preview/store/1")
    assert Deployment.objects.get(application__name="one").steps.count() == 0


def test_the_documentation_names_every_example() -> None:
    text = (ROOT / "docs" / "sharing.md").read_text()

    examples = (
        "dedicated",
        "shared-by-name",
        "shared-by-params",
        "shared-always",
        "matched",
        "organisation",
        "pooled",
    )
    assert [name for name in examples if f"examples/sharing/{name}.yaml" not in text] == []
