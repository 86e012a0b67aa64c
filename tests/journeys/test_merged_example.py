"""The example of docs/sharing.md: two applications ask differently for one account."""

from __future__ import annotations

from pathlib import Path

import pytest

from portal.management.plan_text import plan_lines
from provisioning.services.catalog import sync_catalog
from provisioning.services.deployments import plan_deployment, submit_deployment
from provisioning.services.people import system_user
from tests.provisioning.place import Place, new_place

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = ROOT / "examples" / "sharing"


@pytest.fixture
def place(db: None) -> Place:
    """Return an organisation with the catalogue that comes with Conductor."""
    place = new_place()
    sync_catalog(organisation=place.organisation, source=str(ROOT / "catalog"), actor=system_user())
    return place


@pytest.mark.terraform
def test_the_plan_is_the_one_that_the_documentation_shows(place: Place) -> None:
    orders = (EXAMPLES / "merged-orders.yaml").read_text()
    reports = (EXAMPLES / "merged-reports.yaml").read_text()
    submit_deployment(
        application=place.application("orders"),
        environment=place.environment,
        files=[("merged-orders.yaml", orders)],
        actor=None,
    )

    plan = plan_deployment(
        application=place.application("reports"),
        environment=place.environment,
        files=[("merged-reports.yaml", reports)],
    )

    (resource,) = plan.resources
    assert resource.params == {
        "consistency": "Session",
        "enableMultiRegion": True,
        "tier": "Premium",
    }
    text = "\n".join(plan_lines(plan.to_json()))
    assert text in (ROOT / "docs" / "sharing.md").read_text()
