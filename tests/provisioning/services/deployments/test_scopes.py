"""Resources that are found and used in other environments of the organisation."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django_q.models import OrmQ

from provisioning.drivers.base import DriverError
from provisioning.drivers.fake import FakeDriver
from provisioning.exceptions import ConductorError
from provisioning.models import (
    AuditEvent,
    Deployment,
    Resource,
    ResourceDependency,
    Step,
    TemplateRule,
)
from provisioning.services.catalog.rematching import RematchError, guarded
from provisioning.services.credentials import set_credential
from provisioning.services.deployments import plan_deployment
from provisioning.services.outputs import resolved_outputs
from provisioning.services.people import system_user
from provisioning.services.resources.adopt import detach_resource
from provisioning.workers.run import StepRun
from provisioning.workers.tasks import work
from tests.provisioning.place import Place, score_file
from tests.provisioning.services.deployments.environments import (
    BUCKET,
    MERGED,
    NARROW,
    USED,
    WIDE,
    dev,
    fresh,
    live,
    staging,
    used_by,
)

__all__ = ["dev", "staging"]


def test_what_another_environment_has_is_joined_and_counted(dev: Place, staging: Place) -> None:
    assert staging.deploy(WIDE, application="pay").status == "succeeded"
    joined = dev.deploy(USED)

    cache = used_by(staging, "pay")
    assert joined.status == "succeeded"
    assert used_by(dev) == cache
    assert cache.environment == staging.environment
    assert joined.scope == "organisation"
    assert joined.plan["bindings"][0]["key"] == f"in/acme/staging/{cache.key}"
    assert dev.steps(joined) == {
        "private/shop/web/db/database.default": ("ensure", "succeeded", True)
    }
    database = used_by(dev, alias="db")
    assert database.params == {"of": f"${{resources.in/acme/staging/{cache.key}.host}}"}
    given = resolved_outputs(application=dev.application(), environment=dev.environment, actor=None)
    assert given["web"]["cache"]["host"]

    assert staging.teardown("pay").status == "succeeded"
    cache.refresh_from_db()
    assert cache.state == "active"
    left = dev.teardown()
    assert left.status == "succeeded"
    assert live() == {}
    assert dev.steps(left) == {
        "private/shop/web/db/database.default": ("destroy", "succeeded", True),
        cache.key: ("destroy", "succeeded", True),
    }


def test_what_is_in_the_environment_itself_is_taken_before(dev: Place, staging: Place) -> None:
    staging.deploy(WIDE, application="pay")
    dev.deploy(NARROW, application="old")
    joined = dev.deploy(WIDE)

    assert used_by(dev) == used_by(dev, "old")
    (binding,) = joined.plan["bindings"]
    told = [(each["key"][:15], each["chosen"], each["reason"]) for each in binding["considered"]]
    assert told == [
        (used_by(dev).key[:15], True, "the best-ranked that fits"),
        ("in/acme/staging", False, "it fits, but another is ranked before it"),
    ]


def test_the_scope_environment_finds_nothing_elsewhere(dev: Place, staging: Place) -> None:
    staging.deploy(WIDE, application="pay")
    plan = plan_deployment(
        application=dev.application(),
        environment=dev.environment,
        files=[("score.yaml", score_file("web", NARROW))],
    )

    assert plan.scope == "environment"
    assert [each.action for each in plan.resources] == ["create"]
    assert plan.bindings[0].considered == ()


def test_both_environments_open_the_same_slot(dev: Place, staging: Place) -> None:
    wish = WIDE + "    metadata: {}\n"
    plans = [
        plan_deployment(
            application=each.application(),
            environment=each.environment,
            files=[("score.yaml", score_file("web", wish))],
        )
        for each in (dev, staging)
    ]

    assert plans[0].bindings[0].key == plans[1].bindings[0].key
    assert plans[0].bindings[0].key.endswith("/0")


def test_a_full_resource_is_followed_by_the_next_of_its_slot(dev: Place, staging: Place) -> None:
    two = WIDE.replace("scope: organisation", "scope: organisation, maxConsumers: 2")
    for number, each in enumerate((dev, staging, dev, staging)):
        each.deploy(two, application=f"app-{number}")

    ordinals = Resource.objects.order_by("slot_ordinal").values_list(
        "environment__name", "slot_ordinal"
    )
    assert list(ordinals) == [("dev", 0), ("dev", 1)]
    assert used_by(staging, "app-1") == used_by(dev, "app-0")
    assert used_by(staging, "app-3") == used_by(dev, "app-2")


def test_one_application_in_both_environments_counts_twice(dev: Place, staging: Place) -> None:
    staging.deploy(USED)
    dev.deploy(USED)
    cache = used_by(staging)
    assert used_by(dev) == cache
    assert cache.created_by == dev.application()

    assert staging.teardown().status == "succeeded"
    assert live() == {("staging", "slot"): "active", ("dev", "private"): "active"}
    assert dev.teardown().status == "succeeded"
    assert live() == {}


def test_a_narrowed_scope_comes_home(dev: Place, staging: Place) -> None:
    staging.deploy(WIDE)
    dev.deploy(WIDE)
    moved = dev.deploy(NARROW)

    assert moved.status == "succeeded"
    assert used_by(dev).environment == dev.environment
    assert used_by(staging).environment == staging.environment


def test_a_step_uses_the_queue_of_its_resources_environment(dev: Place) -> None:
    staging = dev.beside("staging", queue="eu")
    staging.submit(WIDE, application="pay")
    joined = dev.submit(USED)
    OrmQ.objects.all().delete()

    queues = {step.resource.key[:4]: step.queue for step in joined.steps.all()}
    assert queues == {"slot": "eu", "priv": "default"}
    work("default")
    assert not Step.objects.filter(status="succeeded").exists()
    work("eu")
    assert OrmQ.objects.filter(key="default").exists()
    work("default")
    assert fresh(joined).status == "succeeded"


def test_a_step_signs_in_as_its_resources_environment_does(dev: Place, staging: Place) -> None:
    for each in (dev, staging):
        set_credential(
            environment=each.environment,
            name="TOKEN",
            value=f"of-{each.environment.name}",
            actor=system_user(),
        )
    staging.submit(WIDE, application="pay")
    joined = dev.submit(USED)

    tokens = {}
    for step in joined.steps.select_related("resource__template_version__template"):
        run = StepRun(step, lost=lambda: False, driver="fake")
        tokens[step.resource.key[:4]] = run.environment["TOKEN"]
        run.close()
    assert tokens == {"slot": "of-staging", "priv": "of-dev"}


def test_nobody_waits_for_the_creators_step(
    dev: Place, staging: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = staging.submit(WIDE, application="pay")
    joined = dev.submit(USED)
    ensure, failures = FakeDriver.ensure, ["no"]

    def once(self: FakeDriver, resource: Any, run: Any) -> Any:
        if failures:
            raise DriverError(failures.pop(), permanent=True)
        return ensure(self, resource, run)

    monkeypatch.setattr(FakeDriver, "ensure", once)
    assert joined.status == "running"
    assert joined.steps.count() == 2
    work("default")

    assert (fresh(first).status, fresh(joined).status) == ("failed", "succeeded")
    assert used_by(dev).state == "active"


def test_params_may_refer_to_resources_of_several_environments(dev: Place, staging: Place) -> None:
    of = "  net:\n    type: database\n" + MERGED.replace(
        "{size: 1}", "{of: ['${resources.net.host}']}"
    )
    staging.deploy(of)
    joined = dev.deploy(of)

    assert joined.status == "succeeded"
    cache, net = used_by(dev), "private/shop/web/net/database\\.default.host"
    assert cache.params == {"of": [f"${{resources.in/acme/dev/{net}}}", f"${{resources.{net}}}"]}
    crossing = ResourceDependency.objects.get(crosses=True)
    assert (crossing.source, crossing.target) == (cache, used_by(dev, alias="net"))
    for each in (dev, staging, dev):
        assert each.deploy(of).plan["steps"] == []

    assert dev.teardown().status == "succeeded"
    cache.refresh_from_db()
    assert cache.params == {"of": [f"${{resources.{net}}}"]}
    assert live() == {("staging", "slot"): "active", ("staging", "private"): "active"}
    assert staging.teardown().status == "succeeded"
    assert live() == {}


def test_a_resource_keeps_the_defaults_of_its_own_environment(dev: Place, staging: Place) -> None:
    for each, tier in ((staging, "big"), (dev, "small")):
        each.environment.defaults = {"store": {"tier": tier}}
        each.environment.save()
    staging.deploy(MERGED, application="pay")
    joined = dev.deploy(MERGED)

    assert joined.plan["steps"] == []
    assert used_by(dev).params == {"size": 1, "tier": "big"}


def test_what_is_provisioned_beside_is_shared_and_goes_with_it(dev: Place, staging: Place) -> None:
    staging.deploy(BUCKET, application="pay")
    joined = dev.deploy(BUCKET)

    cache = used_by(staging, "pay")
    policy = used_by(staging, "pay", "cache/policy")
    assert joined.status == "succeeded"
    assert joined.plan["steps"] == []
    assert used_by(dev, alias="cache/policy") == policy
    assert policy.key.startswith(f"with/{cache.key}/policy.default")
    staging.teardown("pay")
    assert set(Resource.objects.values_list("state", flat=True)) == {"active"}
    dev.teardown()
    assert set(Resource.objects.values_list("state", flat=True)) == {"deleted"}


def test_nothing_is_made_in_another_environment(dev: Place, staging: Place) -> None:
    staging.deploy(BUCKET, application="pay")
    policy = used_by(staging, "pay", "cache/policy")
    detach_resource(resource=policy, actor=system_user(), force=True, reason="It is managed now.")

    with pytest.raises(ConductorError, match="would have to be made in the environment acme/stag"):
        dev.submit(BUCKET)
    assert not Deployment.objects.filter(environment=dev.environment).exists()
    assert live() == {("staging", "slot"): "active"}


def test_a_link_costs_the_environment_no_more_queries_per_resource(
    dev: Place, staging: Place
) -> None:
    asking = dev.application("asks")

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            plan_deployment(
                application=asking,
                environment=dev.environment,
                files=[("score.yaml", score_file("web", WIDE))],
            )
        return len(captured)

    staging.deploy(USED, application="first")
    dev.deploy(USED, application="first")
    few = queries()
    for number in range(5):
        other = WIDE.replace("size: 1", f"size: {number}")
        staging.deploy(other, application=f"app-{number}")
        dev.deploy(other, application=f"app-{number}")
    assert queries() == few


def test_a_rule_is_looked_at_where_the_workload_is(dev: Place, staging: Place) -> None:
    staging.deploy(WIDE, application="pay")
    dev.deploy(WIDE)
    other = dev.template("other").template

    with (
        pytest.raises(RematchError) as refused,
        transaction.atomic(),
        guarded(dev.organisation, force=False),
    ):
        TemplateRule.objects.create(
            organisation=dev.organisation,
            template=other,
            type="cache",
            environment=staging.environment,
        )
    assert [(each.environment, each.application) for each in refused.value.rematches] == [
        ("staging", "pay")
    ]


def test_what_happens_is_told_with_its_resource(dev: Place, staging: Place) -> None:
    staging.deploy(WIDE, application="pay")
    joined = dev.deploy(WIDE)

    told = AuditEvent.objects.filter(deployment_id=str(joined.pk), action="consumer.active")
    assert told.count() == 1
