from __future__ import annotations

import pytest

from provisioning.models import AuditEvent, Step
from provisioning.planning.plan import PlanError
from tests.provisioning.place import Place

KEY = "shared/common"
RULES = {
    "tier": {"rule": "maximum", "order": ["Standard", "Premium"]},
    "databases": {"rule": "union"},
    "runtime": {"rule": "priority"},
}


def common(params: str, priority: int | None = None) -> str:
    ranked = "" if priority is None else f"    priority: {priority}\n"
    return (
        f"  common:\n    type: database\n    reference: {{mode: shared, name: common}}\n{ranked}"
        f"    params: {params}\n"
    )


def with_rules(place: Place, shrink: str = "apply") -> None:
    """Register a database template that merges by RULES."""
    place.template("database", outputs={"host": False}, merge_rules=RULES, shrink=shrink)


def test_second_application_extends_the_resource_of_the_first(place: Place) -> None:
    with_rules(place)
    place.deploy(common("{tier: Standard, databases: [users]}"))

    deployment = place.deploy(common("{tier: Premium, databases: [posts]}"), application="mail")

    resource = place.resource(KEY)
    assert deployment.status == "succeeded"
    assert resource.params == {"databases": ["posts", "users"], "tier": "Premium"}
    assert resource.applied_spec_digest == resource.spec_digest
    (planned,) = deployment.plan["resources"]
    assert planned["decided_by"] == {
        "databases": ["mail/web.common", "shop/web.common"],
        "tier": ["mail/web.common"],
    }
    assert deployment.plan["blast_radius"] == {"everybody": {"shop/web": [resource.uid]}}


def test_teardown_takes_the_wish_away(place: Place) -> None:
    with_rules(place)
    place.deploy(common("{tier: Standard, databases: [users]}"))
    place.deploy(common("{tier: Premium, databases: [posts]}"), application="mail")

    deployment = place.teardown("mail")

    assert deployment.status == "succeeded"
    assert place.resource(KEY).params == {"databases": ["users"], "tier": "Standard"}
    assert place.resource(KEY).state == "active"
    assert [step.action for step in deployment.steps.all()] == ["ensure"]


def test_proposed_shrinking_waits_for_a_deployment_that_asks_for_it(place: Place) -> None:
    with_rules(place, "propose")
    place.deploy(common("{tier: Standard}"))
    place.deploy(common("{tier: Premium}"), application="mail")

    torn_down = place.teardown("mail")
    kept = place.resource(KEY).params
    shrunk = place.deploy(common("{tier: Standard}"), shrink=True)

    assert torn_down.plan["resources"][0]["shrinks"] == [
        {"param": "tier", "before": "Premium", "after": "Standard", "verdict": "propose"}
    ]
    assert kept == {"tier": "Premium"}
    assert shrunk.status == "succeeded"
    assert place.resource(KEY).params == place.resource(KEY).floor == {"tier": "Standard"}


def test_what_may_never_shrink_keeps_its_floor(place: Place) -> None:
    with_rules(place, "never")
    place.deploy(common("{databases: [users]}"))
    place.deploy(common("{databases: [posts]}"), application="mail")
    place.teardown("mail")

    place.deploy(common("{databases: [users]}"), shrink=True)

    assert place.resource(KEY).floor == {"databases": ["posts", "users"]}
    assert place.resource(KEY).params == {"databases": ["posts", "users"]}


def test_consumer_whose_wish_is_not_met_is_told(place: Place) -> None:
    with_rules(place)
    place.deploy(common("{runtime: '18', tier: Standard}"))
    assert not AuditEvent.objects.filter(action="consumer.wish_not_met").exists()

    deployment = place.deploy(common("{runtime: '20'}", priority=5), application="mail")

    event = AuditEvent.objects.get(action="consumer.wish_not_met")
    assert (event.subject, event.reason, event.deployment_id) == (
        "shop/web.common",
        f'{KEY} has the runtime "20", and it asked for "18".',
        str(deployment.pk),
    )


def test_consumer_that_joins_without_being_met_is_told_too(place: Place) -> None:
    with_rules(place)
    place.deploy(common("{runtime: '20'}", priority=5))

    deployment = place.deploy(common("{runtime: '18'}"), application="mail")

    assert deployment.status == "succeeded"
    assert not deployment.steps.exists()
    event = AuditEvent.objects.get(action="consumer.wish_not_met")
    assert (event.subject, event.deployment_id) == ("mail/web.common", str(deployment.pk))


def test_conflict_starts_nothing(place: Place) -> None:
    with_rules(place)
    place.deploy(common("{runtime: '18'}"))

    with pytest.raises(PlanError) as caught:
        place.submit(common("{runtime: '20'}"), application="mail")

    assert str(caught.value) == (
        'score.yaml:11:13: shared/common cannot serve everybody: the parameter `runtime` is "20" '
        'for workload web of application mail and "18" for workload web of application shop; the '
        "rule is priority, both have the priority 0. (ask for the same value, let one of the two "
        "have a higher `priority`, or use another name for a resource of your own)"
    )
    assert Step.objects.count() == 1
    assert place.resource(KEY).params == {"runtime": "18"}
