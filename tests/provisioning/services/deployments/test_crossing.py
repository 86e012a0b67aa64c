"""Resources that are changed, waited for, left and destroyed across environments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from provisioning.drivers.base import DriverError
from provisioning.drivers.fake import FakeDriver
from provisioning.models import (
    AuditEvent,
    Deployment,
    Resource,
    ResourceConsumer,
    ResourceDependency,
    Step,
)
from provisioning.planning.maintenance import HeldResourceError
from provisioning.services.people import system_user
from provisioning.services.resources.destroy import destroy_resource
from provisioning.services.sharing import revoke
from provisioning.workers.tasks import work
from tests.provisioning.place import Place, chores
from tests.provisioning.services.deployments.environments import (
    BUCKET,
    FOLLOWS,
    MERGED,
    USED,
    WIDE,
    dev,
    fresh,
    live,
    staging,
    used_by,
)

__all__ = ["dev", "staging"]


def test_a_change_is_told_and_followed_in_the_other_environment(
    dev: Place, staging: Place, ledger: Path
) -> None:
    staging.deploy(MERGED + FOLLOWS, application="pay")
    more = dev.deploy(MERGED.replace("size: 1", "size: 2"))

    assert more.status == "succeeded"
    cache, database = used_by(staging, "pay"), used_by(staging, "pay", "db")
    assert cache.params == {"size": 2}
    assert cache.applied_spec_digest == cache.spec_digest
    assert more.plan["blast_radius"] == {
        "everybody": {"acme/staging/pay/web": sorted([cache.uid, database.uid])}
    }
    assert dev.steps(more) == {
        cache.key: ("ensure", "succeeded", True),
        database.key: ("ensure", "succeeded", False),
    }
    assert staging.deploy(MERGED + FOLLOWS, application="pay").plan["steps"] == []

    less = dev.teardown()
    cache.refresh_from_db()
    assert less.status == "succeeded"
    assert cache.params == {"size": 1}
    assert staging.deploy(MERGED + FOLLOWS, application="pay").plan["steps"] == []


def test_a_change_is_followed_through_several_environments(dev: Place, staging: Place) -> None:
    production = dev.beside("production")
    above = (
        "  above:\n    type: bucket\n    matching: {scope: organisation, matchOn: []}\n"
        "    params: {of: '${resources.cache.host}'}\n"
    )
    staging.deploy(MERGED, application="pay")
    dev.deploy(MERGED + above)
    follows = FOLLOWS.replace("cache", "above")
    production.deploy(above.replace("    params: {of: '${resources.cache.host}'}\n", "") + follows)
    bucket = used_by(production, alias="above")
    assert bucket == used_by(dev, alias="above")
    more = staging.deploy(MERGED.replace("size: 1", "size: 2"), application="pay")

    assert more.status == "succeeded"
    assert set(staging.steps(more)) == {
        used_by(staging, "pay").key,
        bucket.key,
        used_by(dev, alias="above/policy").key,
        used_by(production, alias="db").key,
    }
    assert more.plan["blast_radius"]["everybody"].keys() == {
        "acme/dev/shop/web",
        "acme/production/shop/web",
    }
    assert staging.teardown("pay").status == dev.teardown().status == "succeeded"
    assert live() == {
        ("staging", "slot"): "active",
        ("dev", "slot"): "active",
        ("dev", "with"): "active",
        ("production", "private"): "active",
    }
    assert production.teardown().status == "succeeded"
    assert live() == {}


def test_a_wish_that_is_not_met_is_told_with_its_environment(dev: Place, staging: Place) -> None:
    wish = "  cache:\n    type: ranked\n    priority: %d\n" + MERGED.partition("store\n")[2]
    dev.template("ranked", outputs={"host": False}, merge_rules={"size": {"rule": "priority"}})
    staging.deploy(wish % 2, application="pay")
    dev.deploy((wish % 1).replace("size: 1", "size: 2"))

    told = AuditEvent.objects.get(action="consumer.wish_not_met")
    assert (told.subject, told.reason) == (
        "acme/dev/shop/web.cache",
        f"{used_by(dev).key} has the size 1, and it asked for 2.",
    )


def test_a_change_waits_for_work_in_the_other_environment_and_starts_after_it(
    dev: Place, staging: Place
) -> None:
    first = staging.submit(MERGED, application="pay")
    waiting = dev.submit(MERGED.replace("size: 1", "size: 2"))
    cache = used_by(staging, "pay")

    assert (waiting.status, waiting.status_reason) == (
        "waiting",
        (
            f"Waiting for deployment {first.pk} of acme/staging/pay, which is at work on "
            f"acme/staging/{cache.key}."
        ),
    )
    third = staging.submit(MERGED.replace("size: 1", "size: 3"), application="bill")
    assert third.status_reason.startswith(f"Waiting for deployment {first.pk} of pay")
    work("default")

    assert [fresh(each).status for each in (first, waiting, third)] == [
        "succeeded",
        "succeeded",
        "pending_confirmation",
    ]
    cache.refresh_from_db()
    assert cache.params == {"size": 2}


def test_who_asked_first_in_the_other_environment_comes_first(dev: Place, staging: Place) -> None:
    staging.deploy(MERGED, application="pay")
    going = staging.submit(MERGED.replace("size: 1", "size: 2"), application="pay")
    first = dev.submit(MERGED.replace("size: 1", "size: 3"))
    Step.objects.filter(deployment=going).update(status="succeeded")
    second = staging.submit(MERGED.replace("size: 1", "size: 4"), application="bill")

    cache = used_by(staging, "pay")
    assert second.status_reason == (
        f"Waiting for deployment {first.pk} of acme/dev/shop, which asked first for {cache.key}."
    )


def test_a_join_waits_for_a_destruction_elsewhere_and_then_makes_its_own(
    dev: Place, staging: Place
) -> None:
    staging.deploy(WIDE, application="pay")
    destroyed = destroy_resource(
        resource=used_by(staging, "pay"), actor=system_user(), force=True, reason="It was breached."
    )
    joined = dev.submit(WIDE)

    assert destroyed.status == "running"
    assert joined.plan["bindings"][0]["key"].endswith("/1")
    work("default")
    assert fresh(joined).status == "succeeded"
    assert used_by(dev).environment == dev.environment


def test_a_resource_used_elsewhere_is_not_destroyed_but_by_force(
    dev: Place, staging: Place
) -> None:
    staging.deploy(WIDE, application="pay")
    dev.deploy(USED)
    staging.teardown("pay")
    cache = used_by(dev)
    actor = system_user()

    with pytest.raises(HeldResourceError, match="referenced by: acme/dev/shop/web, acme/dev/priv"):
        destroy_resource(resource=cache, actor=actor)
    assert used_by(dev).state == "active"

    forced = destroy_resource(resource=cache, actor=actor, force=True, reason="It was breached.")
    work("default")
    assert fresh(forced).status == "succeeded"
    assert ResourceConsumer.objects.get(alias="cache", state="broken").workload.environment == (
        dev.environment
    )
    again = dev.deploy(USED)
    assert again.status == "succeeded"
    assert live() == {("dev", "slot"): "active", ("dev", "private"): "active"}
    assert used_by(dev, alias="db").params == {"of": f"${{resources.{used_by(dev).key}.host}}"}


def test_grace_outlasts_the_last_user_of_another_environment(dev: Place, staging: Place) -> None:
    staging.deploy(WIDE, application="pay")
    dev.deploy(WIDE)
    cache = used_by(dev)
    Resource.objects.filter(pk=cache.pk).update(grace_seconds=3600)
    staging.teardown("pay")
    dev.teardown()

    cache.refresh_from_db()
    assert (cache.state, cache.grace_until is None) == ("active", False)
    Resource.objects.filter(pk=cache.pk).update(grace_until="2020-01-01T00:00:00Z")
    chores()
    work("default")
    cache.refresh_from_db()
    assert cache.state == "deleted"
    assert Deployment.objects.get(kind="maintenance").environment == staging.environment


def test_the_parts_of_what_is_revoked_in_one_environment_stay_in_the_other(
    dev: Place, staging: Place
) -> None:
    policed = BUCKET + "  db:\n    type: database\n    dependsOn: [cache]\n"
    for each in (staging, dev):
        each.deploy(policed)
    policy = used_by(staging, alias="cache/policy")
    database = used_by(dev, alias="db")
    for each in (staging, dev):
        follower = used_by(each, alias="db")
        ResourceDependency.objects.create(source=follower, target=policy, kind="strong")
    consumer = ResourceConsumer.objects.get(alias="cache", crosses=True, state="active")
    lost = revoke(consumer=consumer, reason="Enough.", actor=system_user())

    assert lost.parts == (policy.key,)
    assert not database.dependencies.exists()
    assert used_by(staging, alias="db").dependencies.count() == 2
    assert used_by(staging, alias="cache/policy") == policy


def test_revoking_the_use_in_one_environment_leaves_the_other(dev: Place, staging: Place) -> None:
    for each in (staging, dev):
        each.deploy(USED)
    consumer = ResourceConsumer.objects.get(
        alias="cache", workload__environment=dev.environment, state="active"
    )
    lost = revoke(consumer=consumer, reason="Enough.", actor=system_user())

    assert lost.others == ()
    assert lost.dependents == ("private/shop/web/db/database.default",)
    edges = ResourceDependency.objects.values_list("source__environment__name", flat=True)
    assert list(edges) == ["staging"]


def test_what_another_environment_joined_meanwhile_is_not_rolled_back(
    dev: Place, staging: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure = FakeDriver.ensure

    def joined_before(self: FakeDriver, resource: Any, run: Any) -> Any:
        if resource.uid.endswith(".db"):
            dev.submit(WIDE)  # the same application, workload and alias, in another environment
            raise DriverError("no", permanent=True)
        return ensure(self, resource, run)

    monkeypatch.setattr(FakeDriver, "ensure", joined_before)
    deployment = staging.deploy(USED, rollback=True)

    cache = used_by(dev)
    assert cache.environment == staging.environment
    assert (deployment.status, cache.state) == ("failed", "active")
    assert deployment.rollbacks.get().status == "succeeded"
    assert live() == {("staging", "slot"): "active"}
